"""The self-generated reference: the target generates images, a model is trained on them.

The image side of :mod:`raymia.prepare.self_prompt`. What the target generates is near to what it
was trained on, so the model knows the domain as the target does but has not seen the members.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymia.evidence.store import PREPARED_MARKER, EvidenceStore
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.image_source import ImageModel
from raymia.prepare.image_families import Images, family_of
from raymia.prepare.parts import Batch, Parts, Share, count_parts, keep_if, part_keys
from raymia.prepare.recipe import Report
from raymia.prepare.trainer import Progress
from raymia.spec import PoolSpec, SelfGeneratedReference
from raymia.storage.scratch import scratch
from raymia.util.draws import stream_key
from raymia.util.errors import InputError
from raymia.util.hashing import digest

VERSION = 1
LATER = {"sampler", "guidance"}
"""Settings that were added to the first ones."""
CAPTIONS = {"prompts", "prompt_column", "instance_prompt"}
"""Settings that say where captions are."""
IMAGES, IMAGES_FILE = "images", "images.parquet"
SHAPE = b"shape"


@dataclass(frozen=True)
class SelfGeneratedRecipe:
    """Everything that a self-generated reference is made from.

    Attributes
    ----------
    target : the checkpoint that generates the images.
    base : the checkpoint that is trained further on them; None for a fresh model of the target's
        architecture, or a fresh adapter of the target's shape.
    captions : that the images are generated of, in turn, of a model of classes their numbers; none
        for a target that takes none, or the empty one.
    """

    target: ImageModel
    base: ImageModel | None
    spec: SelfGeneratedReference
    seed: int
    captions: tuple[str, ...] = ()

    @property
    def material_key(self) -> str:
        return digest({"what": "self-generated images", **self._image_parts()})

    @property
    def key(self) -> str:
        return digest(
            {
                "what": "self-generated reference",
                "base": None if self.base is None else self.base.fingerprint,
                "training": self.spec.training.model_dump(),
                **self._image_parts(),
            }
        )

    @property
    def trained(self) -> ImageModel:
        """The checkpoint whose architecture, and perhaps weights, are trained."""
        return self.base or self.target

    def _image_parts(self) -> Mapping[str, Any]:
        return {
            "version": VERSION,
            "seed": self.seed,
            "target": self.target.fingerprint,
            **self.spec.model_dump(exclude={"kind", "base", "training", *LATER, *CAPTIONS}),
            # Where they say nothing new, keys are those from before there were these settings.
            **self.spec.model_dump(include=LATER, exclude_defaults=True),
            **({"captions": digest(self.captions)} if self.captions else {}),
            **self._guidance_parts,
        }

    @property
    def _guidance_parts(self) -> Mapping[str, Any]:
        """Guidance once led away from the caption that a target is asked with, where it has one,
        and not from the empty one: what such targets generate has another key since."""
        is_prompted = isinstance(self.target, DenoiserCheckpoint) and self.target.query.prompt
        return {"away_from": ""} if is_prompted and self.spec.guidance != 1 else {}

    @property
    def items(self) -> int:
        return self.spec.images

    @property
    def steps(self) -> int:
        return self.spec.training.steps

    def rate_parts(self) -> tuple[list[Any], list[Any]]:
        generate: list[Any] = [self.spec.sampling_steps, self.spec.generation_batch]
        if self.spec.guidance != 1:
            generate.append("guided")
        training = self.spec.training.model_dump(include={"batch_size", "flip", "crop"})
        return ["generate", *generate], ["train", training]

    def describe(self, target: str) -> str:
        what = "model" if self.target.trained_as == self.target.family else "LoRA of its shape"
        return (
            f"{target} generates {self.spec.images:,} images in {self.spec.sampling_steps} steps "
            f"each, and a {what} is trained on them for {self.spec.training.steps:,} steps"
        )

    def make(self, store: EvidenceStore, pool: PoolSpec, report: Report) -> None:
        make_image_reference(
            self,
            store,
            batch_images=pool.batch_images,
            on_images=report("generate images"),
            on_steps=report("train"),
        )

    @property
    def rounds(self) -> int:
        return 1

    @property
    def shares(self) -> int:
        return count_parts(self.spec.images, self.spec.generation_batch)

    @property
    def part_keys(self) -> list[str]:
        return part_keys(self.material_key, [IMAGES])

    def write_share(
        self, share: Share, store: EvidenceStore, pool: PoolSpec, report: Report
    ) -> None:
        if generated_images(self, store) is None:
            parts = Parts(self.material_key, store, share)
            _generate(self, parts, pool.batch_images, report("generate images"))

    def finished(self, folder: Path | None) -> ImageModel:
        if folder is None:
            return replace(self.target, fingerprint=f"to be made: {self.key}")
        return self.trained.in_folder(folder)


def make_image_reference(
    recipe: SelfGeneratedRecipe,
    store: EvidenceStore,
    *,
    batch_images: int,
    on_images: Progress,
    on_steps: Progress,
) -> None:
    """Make a self-generated reference and commit it to the store under the recipe's key.

    The images are committed on their own first, so a run that is killed while it trains does not
    ask the target for them again; one that is killed while it generates asks for a part of them.

    Raises
    ------
    InputError
        For a target that generates nothing, or a base that cannot be trained further.
    RaymiaError
        If target or base are other files now than those that the recipe was made for.
    """
    family = family_of(recipe.target)
    if recipe.base is not None and not family.trains_further:
        raise InputError(
            f"a self-generated reference of {recipe.target.label} is a fresh "
            f"{recipe.target.family} of its architecture; leave out `base`"
        )
    images = generated_images(recipe, store)
    if images is None:
        parts = Parts(recipe.material_key, store)
        table = _generate(recipe, parts, batch_images, on_images)
        _commit_images(recipe, store, table, parts.seconds)
        images = generated_images(recipe, store)  # a run beside this one may have been first
        images = images_of(table) if images is None else images
    store.remove_prepared(recipe.part_keys)
    written = store.prepared_facts(recipe.material_key) or {}
    with store.workplace(recipe.key) as out:
        if store.prepared_facts(recipe.key) is not None:
            return  # by a run beside this one
        unchanged = recipe.trained.watch()
        recipe.trained.check()
        # Its own start and order: a target trained with the same seed would be too near a relative.
        seed = stream_key(recipe.seed, "self-generated reference")
        facts = {**written, **family.train(recipe, images, out, seed, on_steps)}
        keep_if(unchanged, out)
        (out / PREPARED_MARKER).write_text(json.dumps(facts, indent=2) + "\n")
        store.commit_prepared(recipe.key, out)


def generated_images(recipe: SelfGeneratedRecipe, store: EvidenceStore) -> Images | None:
    """What the target generated, uint8 [images, channels, height, width]; None before it did."""
    if store.prepared_facts(recipe.material_key) is None:
        return None
    return images_of(pq.read_table(store.prepared_path(recipe.material_key) / IMAGES_FILE))


def images_of(table: pa.Table) -> Images:
    """Images from a table that :func:`table_of` made."""
    shape = json.loads(table.schema.metadata[SHAPE])
    pixels = b"".join(table["pixels"].to_pylist())
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, *shape).copy()


def table_of(images: Images) -> pa.Table:
    """A row of pixels for each image."""
    table = pa.table({"pixels": pa.array([i.tobytes() for i in images], pa.binary())})
    return table.replace_schema_metadata({SHAPE: json.dumps(images.shape[1:])})


def _generate(
    recipe: SelfGeneratedRecipe, parts: Parts, batch_images: int, progress: Progress
) -> pa.Table:
    """What the target generates, as :func:`table_of` has it."""
    family = family_of(recipe.target)
    parts.unchanged = recipe.target.watch()
    recipe.target.check()
    model = family.load(recipe.target, batch_images)

    def generate(batches: Sequence[Batch], tell: Callable[[int], None]) -> pa.Table:
        numbers = [number for batch in batches for number in batch]
        return table_of(family.generate(model, recipe, numbers, lambda done, _: tell(done)))

    count, side_by_side = recipe.spec.images, recipe.spec.generation_batch
    starts = range(0, count, side_by_side)
    batches = [range(start, min(count, start + side_by_side)) for start in starts]
    return parts.written(IMAGES, batches, generate, progress)


def _commit_images(
    recipe: SelfGeneratedRecipe, store: EvidenceStore, table: pa.Table, seconds: float
) -> None:
    with scratch() as folder:
        pq.write_table(table, folder / IMAGES_FILE)
        facts = {"generated": table.num_rows, "writing_seconds": round(seconds, 3)}
        (folder / PREPARED_MARKER).write_text(json.dumps(facts, indent=2) + "\n")
        store.commit_prepared(recipe.material_key, folder)
