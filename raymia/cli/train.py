"""`raymia train`: train a model whose members are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

TrainingFile = Annotated[Path, typer.Argument(help="the training file", metavar="TRAINING.YAML")]


def train(file: TrainingFile) -> Any:
    """Train a model on members that are known, and write what an audit reads.

    It is a language model, or, where the records are images, a LoRA of a diffusion model. Run it
    again after a kill: it goes on, and ends as it would have ended. Audit what it made with
    `raymia audit FOLDER/manifest.json`.
    """
    from raymia.prepare.train_lora import run_lora_training
    from raymia.report.training_table import trained_table
    from raymia.run.train import run_training
    from raymia.spec.image_training import LoraTrainingSpec
    from raymia.spec.training_file import load_any_training
    from raymia.util.terminal import terminal

    console, spec = terminal(), load_any_training(file)
    manifest = run_lora_training(spec) if isinstance(spec, LoraTrainingSpec) else run_training(spec)
    console.print(trained_table(manifest))
    console.print(f"manifest: {spec.output}/manifest.json", highlight=False, soft_wrap=True)
    if not isinstance(spec, LoraTrainingSpec) and spec.shadows is not None:
        train_shadows(file)
    return manifest


def train_shadows(
    file: Annotated[Path, typer.Argument(help="the training file, or a manifest of images")],
    count: Annotated[int | None, typer.Option(help="how many, beside a manifest")] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray, beside a manifest")] = None,
    cpus: Annotated[float | None, typer.Option(help="of each, on Ray")] = None,
    gpus: Annotated[float | None, typer.Option(help="of each; fractions share a GPU")] = None,
) -> Any:
    """Train the shadows that a training file asks for, and not the target; or shadows of a target
    of images that is trained, which its manifest.json says all of but how many."""
    from raymia.run.shadows import run_image_shadows, run_shadows
    from raymia.spec.file import parse_as
    from raymia.spec.target_training import ShadowsSpec
    from raymia.spec.training_file import load_training
    from raymia.util.errors import InputError
    from raymia.util.terminal import terminal

    console = terminal()
    options = {"count": count, "engine": engine, "cpus": cpus, "gpus": gpus}
    given = {name: value for name, value in options.items() if value is not None}
    if file.suffix == ".json":
        shadows = parse_as(ShadowsSpec, given, "shadows")
        manifest, folder = run_image_shadows(file, shadows, console), str(file.parent)
    elif given:
        raise InputError(
            f"--{next(iter(given))}: a training file says it itself, as `shadows: {{count: 8}}`"
        )
    else:
        spec = load_training(file)
        manifest, folder = run_shadows(spec, console), spec.output
    console.print(
        f"{len(manifest['shadows'])} shadows: {folder}/shadows/manifest.json",
        highlight=False,
        soft_wrap=True,
    )
    return manifest


def print_training_plan(file: Path, console: Console) -> None:
    """Print the plan of a training; loads no model."""
    from raymia.modalities.texts.shadow_training import shadow_trainings
    from raymia.modalities.texts.target_training import resolve_target_training
    from raymia.plan.training import estimate_lora, estimate_training
    from raymia.prepare.train_lora import resolve_lora
    from raymia.report.training_table import lora_plan_table, training_plan_table
    from raymia.spec.image_training import LoraTrainingSpec
    from raymia.spec.training_file import load_any_training

    spec = load_any_training(file)
    if isinstance(spec, LoraTrainingSpec):
        lora = resolve_lora(spec)
        console.print(lora_plan_table(lora, estimate_lora(lora, spec.costs)))
        return
    found = resolve_target_training(spec)
    shadows = [] if spec.shadows is None else shadow_trainings(found)
    expected = estimate_training(
        found.plan,
        found.counted,
        found.tokens,
        shadows=[shadow.plan for shadow in shadows],
        costs=spec.costs,
    )
    console.print(
        training_plan_table(
            spec, found.plan, found.counted, expected, found.set_aside, found.assumed
        )
    )
