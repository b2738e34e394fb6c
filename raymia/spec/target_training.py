"""The training file: how a language model is trained whose members are known."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raymia.spec.base import DataPath, EngineKind, Paths, Share, Strict, Weights
from raymia.spec.kinds import TrainingFile
from raymia.spec.methods import METHODS, LoraMethod, Method, PrefixMethod, PTuningMethod
from raymia.spec.prices import CostsSpec
from raymia.spec.training import RecordFormat, TrainingSpec
from raymia.util.credentials import hidden

Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
]


class TrainedBaseSpec(Strict):
    """The model that is trained further, in transformers format."""

    model: Weights = Field(
        description="local folder, fsspec URL of a folder, without credentials, or hub name"
    )
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    trust_remote_code: bool = Field(
        default=False,
        description="run Python code that comes with the checkpoint; only if you trust its source",
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> TrainedBaseSpec:
        # A validator of the whole section: pydantic would quote the field's value.
        if hidden(self.model) != self.model:
            raise ValueError(
                "model should be a URL without credentials, since the manifest of the training "
                "keeps it; set them in the environment (docs/clusters.md), or give a local folder"
            )
        return self


class TrainedRecordsSpec(Strict):
    """What is trained on: one set that is split at random, or members and held-out records."""

    files: Paths = Field(
        default=[], description="records of which some, drawn at random, are trained on"
    )
    members: Paths = Field(default=[], description="records that are trained on, all of them")
    held_out: Paths = Field(default=[], description="records that are not, from the same source")
    format: RecordFormat | None = Field(
        default=None, description="what a record is, where its columns leave it open; see chat.md"
    )
    side: Literal["chosen", "rejected"] = Field(
        default="chosen", description="which answer of a preference is trained on"
    )
    text_column: str = Field(default="text", description="name of the column that holds the text")
    group_column: str | None = Field(
        default=None,
        description="name of a column that says which records belong together; a group is trained "
        "on as a whole or not at all",
    )

    @model_validator(mode="after")
    def _one_way(self) -> TrainedRecordsSpec:
        if bool(self.files) == bool(self.members) or bool(self.members) != bool(self.held_out):
            raise ValueError("give either `files`, to be split, or both `members` and `held_out`")
        return self


class SplitSpec(Strict):
    """How members are drawn from `records.files`."""

    members: Share = Field(default=0.5, description="share of the records that are trained on")
    inclusion: Literal["randomized"] | None = Field(
        default=None,
        description="`randomized` tosses a fair coin for each record or group; audits "
        "then bound epsilon from this one training",
    )
    near_repetitions: Literal["together", "apart"] = Field(
        default="together",
        description="whether records that are nearly alike are trained on together or not at all, "
        "by the target and by its shadows",
    )

    @model_validator(mode="after")
    def _coins_are_fair(self) -> SplitSpec:
        if self.inclusion is not None and self.members != 0.5:
            raise ValueError("coins are fair: leave out `members`, or `inclusion`")
        return self


class TrainerSpec(Strict):
    """Options of the training, by the names of transformers' TrainingArguments."""

    learning_rate: float = Field(default=5e-5, gt=0, description="at its highest")
    lr_scheduler_type: Schedule = Field(default="linear", description="how the rate falls")
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="share of the steps in which the rate grows"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the rate grows")
    num_train_epochs: float = Field(default=3, gt=0, description="passes over the members")
    max_steps: int | None = Field(
        default=None, ge=1, description="optimizer steps, whatever the epochs"
    )
    per_device_train_batch_size: int = Field(
        default=8, ge=1, description="records that are computed at a time"
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="such batches for one step of the optimizer"
    )
    packing: bool = Field(
        default=False,
        description="several records in a row of `max_length` tokens, none of which sees another, "
        "as TRL's `bfd`; rows are what a batch is counted in",
    )
    bf16: bool | None = Field(
        default=None,
        description="compute in bfloat16, trained weights staying float32; default: on a GPU that "
        "has it",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="of AdamW")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="of AdamW")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="of AdamW")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="length that gradients are cut to; 0 cuts none"
    )
    save_strategy: Literal["epoch", "steps", "no"] = Field(
        default="epoch", description="when a checkpoint is kept; the last is in any case"
    )
    save_steps: int | None = Field(
        default=None, ge=1, description="optimizer steps from one to the next, with `steps`"
    )
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        description="stop after so many checkpoints that are no better on held-out records",
    )
    early_stopping_threshold: float = Field(
        default=0.0, ge=0, description="nats per token by which a checkpoint is better"
    )

    def key_parts(self) -> dict[str, Any]:
        """Everything that a training is a function of."""
        later = {"packing": self.packing, "bf16": self.bf16 is not None}
        return self.model_dump(exclude={name for name, is_said in later.items() if not is_said})

    @model_validator(mode="after")
    def _go_together(self) -> TrainerSpec:
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("give either `warmup_ratio` or `warmup_steps`")
        if (self.save_strategy == "steps") != (self.save_steps is not None):
            raise ValueError("`save_strategy: steps` and `save_steps` belong together")
        if self.early_stopping_patience is not None and self.save_strategy == "no":
            raise ValueError(
                "`early_stopping_patience` compares checkpoints; give a `save_strategy`"
            )
        return self


class DpSpec(Strict):
    """DP-SGD: gradients of each record are cut to one length, and noise is added (opacus)."""

    epsilon: float = Field(gt=0, description="budget of the whole training, for each record")
    delta: Share = Field(description="chance that the budget is no bound; far below 1 / members")
    max_grad_norm: float = Field(default=1.0, gt=0, description="length of a record's gradient")
    accountant: Literal["prv", "rdp"] = Field(
        default="prv", description="how opacus reckons the noise; `prv` needs the least"
    )


class DpoSpec(Strict):
    """Direct preference optimization, in place of the likelihood of one answer."""

    beta: float = Field(
        default=0.1, gt=0, description="how much a preference weighs against staying near the base"
    )


class ShadowsSpec(Strict):
    """Shadows: models trained as the target is, each on a random half of its records."""

    count: int = Field(
        ge=2, le=1_000, description="how many, an even number: a half and the other half, in turn"
    )
    engine: EngineKind = Field(
        default="local",
        description="`local` trains one after another, `ray` side by side; `output` is then a "
        "folder that all machines share",
    )
    cpus: float | None = Field(
        default=None,
        gt=0,
        description="of each, on Ray; default: the most that are free on a machine when training "
        "begins, 8 at most; a machine with fewer is not used; 1 where no machine is up and none is "
        "known to start, as on KubeRay with worker groups of 0: say there how many",
    )
    gpus: float = Field(default=0, ge=0, description="of each; fractions share a GPU")

    @model_validator(mode="after")
    def _in_pairs(self) -> ShadowsSpec:
        if self.count % 2:
            raise ValueError(f"count is {self.count}; give an even number, as {self.count + 1}")
        return self


class WorkersSpec(Strict):
    """Workers that train together, by the names of Ray Train's ScalingConfig."""

    num_workers: int = Field(
        default=1,
        ge=1,
        description="processes that train the model together, each on its part of every batch; "
        "several run on Ray, and `output` is then a folder that all machines share",
    )
    use_gpu: bool = Field(default=False, description="a GPU for each of several workers")
    resources_per_worker: dict[str, float] | None = Field(
        default=None, description="of each of several workers, as `{CPU: 4}`; default: 1 CPU or GPU"
    )

    @model_validator(mode="after")
    def _of_several(self) -> WorkersSpec:
        if self.num_workers == 1 and (self.use_gpu or self.resources_per_worker is not None):
            raise ValueError(
                "one worker trains in this process, on the GPU where torch sees one; leave out "
                "all but `num_workers`, or give more of them"
            )
        return self


class TargetTrainingSpec(TrainingFile):
    """One training: base, records, method, options."""

    output: DataPath = Field(description="folder of checkpoints, records and `manifest.json`")
    base: TrainedBaseSpec = Field(description="the model that is trained further")
    records: TrainedRecordsSpec = Field(description="what is trained on, and what is held out")
    split: SplitSpec = Field(default=SplitSpec(), description="how members are drawn")
    training: TrainingSpec = Field(
        default=TrainingSpec(),
        description="how records become tokens, and which carry a loss; as in the audit file",
    )
    method: Annotated[Method, METHODS] = Field(
        default=LoraMethod(), description="what of the model is trained"
    )
    trainer: TrainerSpec = Field(default=TrainerSpec(), description="options of the training")
    dpo: DpoSpec | None = Field(
        default=None, description="train on which of two answers was preferred, by DPO"
    )
    dp: DpSpec | None = Field(default=None, description="private training, of raymia[train]")
    resources: WorkersSpec = Field(
        default=WorkersSpec(), description="where the target is trained, and by how many"
    )
    shadows: ShadowsSpec | None = Field(default=None, description="models for LiRA, beside it")
    costs: CostsSpec | None = Field(default=None, description="prices, for `raymia plan`")

    @field_validator("method", mode="before")
    @classmethod
    def _name_is_a_method(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("base", mode="before")
    @classmethod
    def _name_is_a_base(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> TargetTrainingSpec:
        if self.training.packing not in (None, "none"):
            raise ValueError(
                "training.packing: each record is trained on in a row of its own; for several in a "
                "row, none of which sees another, say `trainer: {packing: true}`"
            )
        if self.trainer.packing:
            self._fits_packing()
        if self.dp is not None and isinstance(self.method, PrefixMethod | PTuningMethod):
            raise ValueError("dp: virtual tokens are of all records; take another method")
        if self.dpo is not None:
            self._fits_preferences()
        if self.resources.num_workers > 1:
            self._fits_workers(self.resources.num_workers)
        of_shadows = {"near_repetitions"} if self.shadows is not None else set()
        if self.records.members and self.split.model_dump(
            exclude=of_shadows
        ) != SplitSpec().model_dump(exclude=of_shadows):
            raise ValueError(
                "split: members and held-out records are given; leave it out, but for the "
                "`near_repetitions` of shadows"
            )
        return self

    def asked_shadows(self) -> ShadowsSpec | None:
        return self.shadows

    def _fits_workers(self, count: int) -> None:
        for section in ("dp", "dpo"):
            if getattr(self, section) is not None:
                raise ValueError(
                    f"resources.num_workers: with `{section}` one worker trains; leave out one of "
                    "the two"
                )
        size = self.trainer.per_device_train_batch_size
        if size % count:
            raise ValueError(
                f"resources.num_workers: {count} workers cannot share a "
                f"per_device_train_batch_size of {size} evenly, which is of all workers together; "
                f"give {size - size % count} or {size + count - size % count}"
                if size > count
                else f"resources.num_workers: {count} workers are more than a "
                f"per_device_train_batch_size of {size}, which is of all workers together; give "
                f"{count} or a multiple of it"
            )

    def _fits_packing(self) -> None:
        if isinstance(self.method, PrefixMethod | PTuningMethod):
            raise ValueError(
                "trainer.packing: virtual tokens stand before a row, and not before each record of "
                "it; leave it out, or take another method"
            )
        for section in ("dp", "dpo"):
            if getattr(self, section) is not None:
                raise ValueError(
                    f"trainer.packing: with `{section}` each record has a row of its own; leave "
                    "out one of the two"
                )

    def _fits_preferences(self) -> None:
        if self.dp is not None:
            raise ValueError("dpo: a private training is on one answer; leave out `dp` or `dpo`")
        if self.records.side != "chosen":
            raise ValueError("dpo: it is trained on both answers; leave out `records.side`")
        if isinstance(self.method, PrefixMethod | PTuningMethod):
            raise ValueError("dpo: the base has no virtual tokens; take another method")
