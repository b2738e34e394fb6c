"""Models that targets are compared with: existing ones, and ones that are made."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from raymia.spec.base import Checkpoints, Paths, Strict, merge_preset
from raymia.spec.images import SelfGeneratedReference
from raymia.spec.kinds import Kinds, MadeReference
from raymia.spec.methods import LoraMethod, LowRank, QloraMethod
from raymia.spec.models import ModelSpec, ServerSpec


class ModelReference(ModelSpec):
    """A reference that exists already: the base, or a model tuned on similar or identical data."""

    kind: Literal["model"] = Field(default="model", description="may be left out")


class ShadowReference(ModelSpec):
    """A model trained as the target was, on known records (LiRA)."""

    kind: Literal["shadow"] = Field(description="tells a shadow from other references")
    members: Paths = Field(
        description="files of the records it was trained on; one of the audit's among them is in, "
        "the others are out"
    )
    text_column: str = Field(default="text", description="name of the members' column, for texts")


class ShadowFolder(Strict):
    """The shadows of `raymia train`, each a reference NAME-00, NAME-01, ... of kind shadow."""

    kind: Literal["shadows"] = Field(description="tells them from other references")
    folder: Checkpoints = Field(
        description="folder `shadows` of a training, with its manifest.json"
    )


class LoraSpec(Strict):
    """Fine-tune a LoRA adapter instead of all weights."""

    r: int = Field(default=64, ge=1, description="rank")
    alpha: int = Field(default=16, ge=1, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="on the adapter's input")
    target_modules: list[str] | None = Field(default=None, description="default: PEFT's choice")
    quantized: bool = Field(
        default=False,
        description="hold the base in 4 bits (NF4) while it is trained, as QLoRA does; a base that "
        "was saved in 4 or 8 bits is trained so in any case",
    )

    @property
    def method(self) -> LowRank:
        """The same as trainings of targets have it."""
        own: dict[str, Any] = {"r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout,
               "target_modules": self.target_modules}  # fmt: skip
        return QloraMethod(kind="qlora", **own) if self.quantized else LoraMethod(**own)


class FineTuneSpec(Strict):
    """How a model is fine-tuned on texts."""

    epochs: float = Field(default=2, gt=0, description="passes over the texts")
    batch_size: int = Field(default=16, ge=1, description="texts per step")
    learning_rate: float = Field(default=1e-4, gt=0, description="at the start; falls to zero")
    max_tokens: int = Field(
        default=128,
        ge=8,
        description="texts are cut to this many tokens; of a self-prompt reference the default is "
        "its own `max_tokens`",
    )
    lora: LoraSpec | None = Field(default=None, description="none fine-tunes all weights")
    bf16: bool | None = Field(
        default=None,
        description="compute in bfloat16, trained weights staying float32; default: on a GPU that "
        "has it",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep less of each layer and compute it again for the gradient: less memory, a "
        "third more time, the same weights",
    )

    def key_parts(self) -> dict[str, Any]:
        """Everything that a training is a function of; what is not said has the keys of before it
        could be said."""
        parts = self.model_dump(exclude={"gradient_checkpointing"})
        if self.bf16 is None:
            del parts["bf16"]
        if self.lora is not None and not self.lora.quantized:
            del parts["lora"]["quantized"]
        return parts


# Presets of the self-prompt reference; provenance in docs/attacks.md.
SELF_PROMPT_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "texts": 10_000, "prompt_tokens": 16, "max_tokens": 128, "top_k": None,
        "fine_tune": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-4, "lora": {}},
    },
    "repo": {
        "texts": 10_000, "prompt_tokens": 16, "max_tokens": 128, "top_k": 50,
        "fine_tune": {"epochs": 2, "batch_size": 4, "learning_rate": 5e-5, "lora": {}},
    },
}  # fmt: skip


class WritingServer(ServerSpec):
    """A server that writes what a reference is trained on."""

    served_model: str | None = Field(
        default=None,
        min_length=1,
        description="name that the server knows the target by; default: the target's own name, as "
        "vLLM's `--lora-modules NAME=PATH` gives it",
    )
    timeout_seconds: float = Field(default=600, gt=0, description="to wait for one whole text")


class SelfPromptReference(MadeReference):
    """The base fine-tuned on texts that the target itself was prompted to write (SPV-MIA, 3.3)."""

    kind: Literal["self_prompt"] = Field(description="tells this reference from a model")
    preset: Literal["paper", "repo"] | None = Field(
        default=None, description="settings of the SPV-MIA paper or of its released code"
    )
    prompts: Literal["none"] | Paths = Field(
        description="files of texts, none of them a record, or of records of the audit's format "
        "whose answers the target writes anew; `none` has it write the prompts, too"
    )
    text_column: str = Field(default="text", description="name of the prompts' text column")
    base: str = Field(
        default="base", description="name of the reference of kind model that is fine-tuned"
    )
    texts: int = Field(default=2_000, ge=2, description="how many texts the target writes")
    prompt_tokens: int = Field(
        default=16, ge=1, description="the first tokens of a prompt that the target continues"
    )
    max_tokens: int = Field(default=128, ge=8, description="length of a text, its prompt included")
    temperature: float = Field(default=1.0, gt=0, description="of the target's sampling")
    top_k: int | None = Field(
        default=None, ge=1, description="sample among the k likeliest; none calibrates better"
    )
    generation_batch: int = Field(default=64, ge=1, description="texts written side by side")
    written_by: WritingServer | None = Field(
        default=None,
        description="a server that has the target's weights, as vLLM, and writes the texts; by "
        "default the target is loaded and writes them",
    )
    fine_tune: FineTuneSpec = Field(
        default=FineTuneSpec(),
        description="how the base is fine-tuned on the texts; by default as the target was, where "
        "`raymia train` trained it",
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, value: Any) -> Any:
        return merge_preset(value, SELF_PROMPT_PRESETS)

    @property
    def says_how(self) -> bool:
        """Whether it is said how the base is fine-tuned; else as the target was, where that is
        known."""
        return bool({"fine_tune", "preset"} & self.model_fields_set)

    @property
    def tuning(self) -> FineTuneSpec:
        """How the base is fine-tuned: on whole texts, where nothing else is said."""
        said = "max_tokens" in self.fine_tune.model_fields_set
        whole = {} if said else {"max_tokens": self.max_tokens}
        return self.fine_tune.model_copy(update=whole)

    def small(self, items: int, steps: int) -> Self:
        # What is written side by side is as fast as in the audit in whole batches alone.
        texts = min(self.texts, max(items, self.generation_batch))
        if not self.says_how:  # nor does the small one: it is trained as the target was
            return self.model_copy(update={"texts": texts})
        per_epoch = math.ceil(texts / self.fine_tune.batch_size)
        tune = {"epochs": min(self.fine_tune.epochs, max(1, steps // per_epoch))}
        return self.model_copy(update={
            "texts": texts,
            "fine_tune": self.fine_tune.model_copy(update=tune),
        })  # fmt: skip


AnyReference = ModelReference | ShadowReference | ShadowFolder | MadeReference
REFERENCES = Kinds(
    ModelReference, SelfPromptReference, SelfGeneratedReference, ShadowReference, ShadowFolder
)
