"""Ways of fine-tuning a language model, by the names and with the keys that PEFT has for them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raymia.spec.base import Strict
from raymia.spec.kinds import Kinds

TargetModules = list[str] | None
TARGET_MODULES = (
    "names of the layers that are changed, or ends of them; default: PEFT's choice, of images "
    "attention"
)


class Method(Strict):
    """What of a model is trained.

    Class attributes
    ----------------
    peft : name of PEFT's config; None for all weights.
    quantized : whether the base is held in 4 bits.
    """

    peft: ClassVar[str | None] = None
    quantized: ClassVar[bool] = False

    kind: str = Field(description="of the method")

    @property
    def settings(self) -> dict[str, Any]:
        """Keys of PEFT's config."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class FullMethod(Method):
    """All weights."""

    kind: Literal["full"] = Field(description="all weights")


class LowRank(Method):
    """Low-rank changes of some layers."""

    peft = "LoraConfig"

    r: int = Field(default=8, ge=1, description="rank")
    lora_alpha: int = Field(default=8, ge=1, description="the change is scaled by alpha / r")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="on the adapter's input")
    use_rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead")
    target_modules: TargetModules = Field(default=None, description=TARGET_MODULES)


class LoraMethod(LowRank):
    """LoRA: low-rank changes of some layers."""

    kind: Literal["lora"] = Field(default="lora", description="tells it from other methods")


class DoraMethod(LowRank):
    """LoRA whose layers have a magnitude of their own."""

    kind: Literal["dora"] = Field(description="tells it from other methods")

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "use_dora": True}


class QloraMethod(LowRank):
    """LoRA on a base that is held in 4 bits (NF4, double quantization), by bitsandbytes."""

    quantized = True

    kind: Literal["qlora"] = Field(description="tells it from other methods")


class PrefixMethod(Method):
    """Prefix tuning: keys and values of virtual tokens before each record."""

    peft = "PrefixTuningConfig"

    kind: Literal["prefix"] = Field(description="tells it from other methods")
    num_virtual_tokens: int = Field(default=20, ge=1, description="tokens before each record")
    prefix_projection: bool = Field(
        default=False, description="whether a network makes keys and values of fewer numbers"
    )
    encoder_hidden_size: int | None = Field(
        default=None, ge=1, description="width of that network; default: the model's"
    )

    @model_validator(mode="after")
    def _has_a_network(self) -> PrefixMethod:
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ValueError(
                "encoder_hidden_size is of a network that makes the prefix; say "
                "`prefix_projection: true` for one, or leave it out"
            )
        return self


class PTuningMethod(Method):
    """P-tuning: embeddings of virtual tokens before each record, which a network makes."""

    peft = "PromptEncoderConfig"

    kind: Literal["p_tuning"] = Field(description="tells it from other methods")
    num_virtual_tokens: int = Field(default=20, ge=1, description="tokens before each record")
    encoder_hidden_size: int | None = Field(
        default=None, ge=1, description="width of the network; default: the model's"
    )


class Ia3Method(Method):
    """(IA)3: one factor for each output of some layers."""

    peft = "IA3Config"

    kind: Literal["ia3"] = Field(description="tells it from other methods")
    target_modules: TargetModules = Field(default=None, description=TARGET_MODULES)
    feedforward_modules: TargetModules = Field(
        default=None, description="those of them whose input is changed; default: PEFT's choice"
    )


METHODS = Kinds(
    LoraMethod, DoraMethod, QloraMethod, PrefixMethod, PTuningMethod, Ia3Method, FullMethod
)
