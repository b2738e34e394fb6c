"""`raymia train`: train a model whose members are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymia.cli.audit_file import Plugins

if TYPE_CHECKING:
    from rich.console import Console

TrainingFile = Annotated[Path, typer.Argument(help="the training file", metavar="TRAINING.YAML")]


def train(file: TrainingFile, plugin: Plugins = None) -> Any:
    """Train a model on members that are known, and write what an audit reads.

    It is a language model, or, where the records are images, a LoRA of a diffusion model. Run it
    again after a kill: it goes on, and ends as it would have ended. Audit what it made with
    `raymia audit FOLDER/manifest.json`.
    """
    from raymia.report.training_table import trained_table
    from raymia.run.train import run_training
    from raymia.spec.training_file import load_training
    from raymia.util.terminal import terminal

    console, training = terminal(), load_training(file, plugin or [])
    manifest = run_training(training)
    console.print(trained_table(manifest))
    console.print(f"manifest: {training.output}/manifest.json", highlight=False, soft_wrap=True)
    if training.asked_shadows() is not None:
        train_shadows(file, plugin=plugin)
    return manifest


def train_shadows(
    file: Annotated[Path, typer.Argument(help="the training file, or a manifest of images")],
    count: Annotated[int | None, typer.Option(help="how many, beside a manifest")] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray, beside a manifest")] = None,
    cpus: Annotated[float | None, typer.Option(help="of each, on Ray")] = None,
    gpus: Annotated[float | None, typer.Option(help="of each; fractions share a GPU")] = None,
    plugin: Plugins = None,
) -> Any:
    """Train the shadows that a training file asks for, and not the target; or shadows of a target
    of images that is trained, which its manifest.json says all of but how many."""
    from raymia.run.shadows import run_shadows, run_shadows_of
    from raymia.spec.file import parse_as
    from raymia.spec.target_training import ShadowsSpec
    from raymia.spec.training_file import load_training
    from raymia.util.errors import InputError
    from raymia.util.terminal import terminal

    console = terminal()
    options = {"count": count, "engine": engine, "cpus": cpus, "gpus": gpus}
    given = {name: value for name, value in options.items() if value is not None}
    if file.suffix == ".json":
        asked = parse_as(ShadowsSpec, given, "shadows")
        manifest, folder = run_shadows_of(file, asked, console), str(file.parent)
    elif given:
        raise InputError(
            f"--{next(iter(given))}: a training file says it itself, as `shadows: {{count: 8}}`"
        )
    else:
        training = load_training(file, plugin or [])
        manifest, folder = run_shadows(training, console, str(file)), training.output
    console.print(
        f"{len(manifest['shadows'])} shadows: {folder}/shadows/manifest.json",
        highlight=False,
        soft_wrap=True,
    )
    return manifest


def print_training_plan(file: Path, console: Console, plugins: Sequence[str] = ()) -> None:
    """Print the plan of a training; loads no model."""
    from raymia.modalities.trainings import modality_trained_by
    from raymia.report.training_table import training_plan_table
    from raymia.spec.training_file import load_training

    training = load_training(file, plugins)
    plan = modality_trained_by(training).planned_training(training)
    console.print(training_plan_table(plan))
