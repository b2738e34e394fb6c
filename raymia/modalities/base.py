"""What differs between audits of texts and of images, so that all else need not ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raymia.inputs.base import AnyCheckpoint, Inputs
from raymia.models.endpoints.model import Endpoint
from raymia.models.image_source import ImageCheckpoint, image_fingerprint
from raymia.models.loaders import CausalLMLoader, EndpointLoader, ImageModelLoader, Loader
from raymia.models.source import Checkpoint, fingerprint
from raymia.prepare.self_generated import SelfGeneratedRecipe
from raymia.prepare.self_prompt import SelfPromptRecipe
from raymia.questions import on_images as image_questions
from raymia.questions import on_texts as questions
from raymia.questions.base import Probe
from raymia.spec import PoolSpec, SelfGeneratedReference, SelfPromptReference

Recipe = SelfPromptRecipe | SelfGeneratedRecipe
MadeReference = SelfPromptReference | SelfGeneratedReference


def probes_for(
    inputs: Inputs,
    asks: Iterable[str],
    checkpoint: AnyCheckpoint,
    neighbors: tuple[int, str] | None,
) -> list[tuple[str, Probe]]:
    """What a model has to be asked, by question, in order.

    Parameters
    ----------
    asks : questions of the attacks.
    neighbors : how many neighbors a stage makes per record, and the hash of their key.
    """
    if inputs.shape is None:
        return questions.probes_for(inputs, asks, neighbors)
    return image_questions.probes_for(inputs, asks, checkpoint)


def model_evidence(
    checkpoint: AnyCheckpoint | None,
    answers: Iterable[tuple[str, Probe, pa.Table | None]],
    ids: Sequence[str],
) -> Any:
    """The answers of one model to its questions, as attacks read them."""
    if isinstance(checkpoint, ImageCheckpoint):
        return image_questions.model_evidence(answers, ids, checkpoint.latent_shape)
    return questions.model_evidence(answers, ids)


def loader_for(checkpoint: AnyCheckpoint, pool: PoolSpec) -> Loader:
    """How an actor of a pool loads a model."""
    if isinstance(checkpoint, Endpoint):
        return EndpointLoader(checkpoint, pool.actors)
    if isinstance(checkpoint, ImageCheckpoint):
        return ImageModelLoader(checkpoint, pool.batch_images)
    return CausalLMLoader(checkpoint, pool.batch_tokens)


def recipe_for(inputs: Inputs, name: str, spec: MadeReference, target: str) -> Recipe:
    """What a reference is made from that a target has a part in."""
    maker = inputs.targets[target]
    base = None if spec.base is None else inputs.references[spec.base]
    if isinstance(spec, SelfGeneratedReference):
        assert isinstance(maker, ImageCheckpoint)
        assert base is None or isinstance(base, ImageCheckpoint)
        return SelfGeneratedRecipe(target=maker, base=base, spec=spec, seed=inputs.spec.seed)
    assert isinstance(maker, Checkpoint), "inputs refuse an endpoint that should write"
    assert isinstance(base, Checkpoint)
    return SelfPromptRecipe(maker, base, spec, inputs.prompts[name], inputs.spec.seed)


def finished_checkpoint(recipe: Recipe, folder: Path | None) -> AnyCheckpoint:
    """The checkpoint of a prepared reference; before it is made, one without any evidence."""
    if isinstance(recipe, SelfGeneratedRecipe):
        if folder is None:
            return replace(recipe.target, fingerprint=f"to be made: {recipe.key}")
        made = ImageCheckpoint(**recipe.checkpoint_at(folder))
        return replace(made, fingerprint=image_fingerprint(made))
    if folder is None:
        return replace(recipe.base, fingerprint=f"to be made: {recipe.key}")
    checkpoint = Checkpoint(**recipe.checkpoint_at(folder))
    return replace(checkpoint, fingerprint=fingerprint(checkpoint))
