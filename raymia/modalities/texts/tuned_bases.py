"""Whether bases can be fine-tuned into references, told before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raymia.inputs.base import Problems
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import AnyCheckpoint
from raymia.prepare.own_recipe import OwnRecipe
from raymia.prepare.tuning import TRAINED_ON, check_checkpointing, check_method
from raymia.spec import AnyReference, AuditSpec, ModelReference, SelfPromptReference


def check_bases(
    spec: AuditSpec,
    references: Mapping[str, AnyCheckpoint],
    recipes: Mapping[str, OwnRecipe],
    problems: Problems,
) -> None:
    """Refuse to fine-tune what is no plain model in safetensors, or what its adapter does not fit,
    and to do it on fewer texts than a step takes.

    Parameters
    ----------
    references : those that exist already, by name.
    recipes : how targets were trained, by name; a reference is made so where it does not say how.
    """
    for name, made in spec.references.items():
        if not isinstance(made, SelfPromptReference):
            continue
        base, own = references.get(made.base), [recipes.get(target.name) for target in spec.targets]
        for recipe in {id(recipe): recipe for recipe in own if not made.says_how}.values():
            if recipe is not None:
                problems.attempt(recipe.check, made.texts, f"references.{name}")
        is_adapted = made.fine_tune.lora is not None
        if not made.says_how and all(recipe is not None for recipe in own):
            is_adapted = all(recipe.method.peft for recipe in own if recipe is not None)
        whys = [*_why_not_tuned(spec.references[made.base], base, is_adapted)]
        problems.found += [f"references.{name}.base: {made.base!r} {why}" for why in whys]
        if isinstance(base, CausalCheckpoint) and not whys:
            where = f"references.{name}.fine_tune"
            if made.fine_tune.lora is not None:
                method = made.fine_tune.lora.method
                problems.attempt(check_method, method, base, f"{where}.lora")
            if made.fine_tune.gradient_checkpointing:
                problems.attempt(check_checkpointing, base, f"{where}.gradient_checkpointing")


def _why_not_tuned(
    base: AnyReference, checkpoint: AnyCheckpoint | None, is_adapted: bool
) -> Iterator[str]:
    if isinstance(base, ModelReference) and base.adapter is not None:
        yield (
            "has an adapter, and only a plain model can be fine-tuned; merge the adapter into it "
            "first"
        )
    if isinstance(base, ModelReference) and base.gguf_file is not None:
        yield (
            "is a GGUF file, and only a model in safetensors can be fine-tuned; give the model "
            "that it was made from"
        )
    saved_as = checkpoint.facts.saved_as if isinstance(checkpoint, CausalCheckpoint) else None
    if saved_as is not None and not (is_adapted and saved_as in TRAINED_ON):
        instead = " say `fine_tune: {lora: {}}`, or" if saved_as in TRAINED_ON else ""
        yield (
            f"was saved quantized ({saved_as}), and quantized weights cannot be fine-tuned;"
            f"{instead} give the model that it was made from"
        )
