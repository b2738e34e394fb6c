"""Questions about an image with other captions than its own: reduced ones, and those of others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raymia.evidence.image import DISTANCES
from raymia.questions.base import (
    RECORD,
    Item,
    Question,
    Setup,
    register_question,
    row_key,
    variants,
)
from raymia.questions.images import ImageQuestion, list_schema
from raymia.spec import AuditSpec
from raymia.spec.images import Step
from raymia.util.draws import stream_key
from raymia.util.hashing import digest

if TYPE_CHECKING:
    from raymia.models.denoisers.model import Denoiser

NO_OTHER = "no caption of the population is another than its own"


@dataclass(frozen=True)
class _WithCaptions(ImageQuestion):
    """Base of questions for the denoising error with several captions; all are given the noise of
    the record."""

    timesteps: tuple[Step, ...]
    seed: int
    families = frozenset({"denoiser"})
    needs = frozenset({"text_conditioning"})
    section = "captions"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return not _are_captioned(spec)

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        return self.timesteps

    @property
    def grid_indices(self) -> range | None:
        found = self.indices()
        assert isinstance(found, range)
        return found

    @property
    def passes(self) -> int:
        return len(self.timesteps)

    @abstractmethod
    def caption(self, own: str, item: Item) -> str | None:
        """The caption that an item is about; None where there is none.

        Parameters
        ----------
        own : what the record is asked with otherwise.
        """

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        from raymia.questions.asking.images import (
            chunks,
            decode_pixels,
            denoising_rows,
            encode,
            whole_records,
        )

        steps = [(t, 0) for t in self.timesteps]

        def key(item: Item, t: Step, draw: int) -> int:
            return stream_key(self.seed, "noise", item.record_id, RECORD, t, draw)

        rows: list[dict[str, Any]] = []
        given = [(item, self.caption(model.caption_of(item.payload), item)) for item in items]
        asked = {id(item): caption for item, caption in given if caption is not None}
        most = whole_records(model, len(self.indices()))
        for chunk in chunks([item for item in items if id(item) in asked], most):
            latents = encode(model, decode_pixels(chunk, model))
            captions = [asked[id(item)] for item in chunk]
            rows += denoising_rows(model, chunk, latents, captions, steps, key, most)
        rows += [{**row_key(i), "error": NO_OTHER} for i, caption in given if caption is None]
        return pa.Table.from_pylist(rows, schema=self.schema)


@register_question
@dataclass(frozen=True)
class CaptionQuestion(_WithCaptions):
    """Denoising errors with reduced captions (CLiD, arXiv 2405.14800).

    Index 0 is the full caption; index i of n keeps the first ``1 - i / n`` of its words, so that
    the last is the empty caption.
    """

    reductions: int
    name = "captions"
    cost = "(1 + r) k"
    kind: ClassVar[str] = "image.captions"

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.captions
        return [cls(tuple(spec.timesteps), setup.seed, spec.reductions)]

    def indices(self) -> range:
        return range(RECORD, RECORD + 1 + self.reductions)

    def key_parts(self) -> Mapping[str, Any]:
        return {
            "timesteps": list(self.timesteps),
            "reductions": self.reductions,
            "seed": self.seed,
        }

    def caption(self, own: str, item: Item) -> str:
        return reduced(own, 1 - item.neighbor / self.reductions)


@register_question
@dataclass(frozen=True)
class OtherCaptionQuestion(_WithCaptions):
    """Denoising errors with the captions of other images.

    Index i is given the i-th of the population's captions that are not the record's own, from a
    place on that is a function of the record; so a record's captions do not hang on other records.
    """

    captions: tuple[str, ...]
    others: int
    name = "other_captions"
    cost = "o k"
    kind: ClassVar[str] = "image.other_captions"

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.captions
        known = dict.fromkeys(payload["caption"] for payload in setup.population.values())
        captions = tuple(caption for caption in known if caption)
        return [cls(tuple(spec.timesteps), setup.seed, captions, spec.others)]

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        if spec.records.population and _have_captions(spec):
            return None
        return (
            "compares a caption with those of other images; give images with captions as "
            "`population` under `records`"
        )

    def indices(self) -> range:
        return variants(self.others)

    def key_parts(self) -> Mapping[str, Any]:
        return {
            "timesteps": list(self.timesteps),
            "captions": digest(list(self.captions)),
            "seed": self.seed,
        }

    def caption(self, own: str, item: Item) -> str | None:
        others = [caption for caption in self.captions if caption != own]
        if not others:
            return None
        start = stream_key(self.seed, "other captions", item.record_id)
        return others[(start + item.neighbor) % len(others)]


def _have_captions(spec: AuditSpec) -> bool:
    """Whether images have captions of their own, or by their folder."""
    records = spec.records
    column = getattr(records, "caption_column", None)
    return column is not None or getattr(records, "folder_prompts", False)


def _are_captioned(spec: AuditSpec) -> bool:
    """Whether images have captions: of their own, by their folder, or one for all."""
    trainings = [spec.training, *(getattr(target, "training", None) for target in spec.targets)]
    return _have_captions(spec) or any(getattr(one, "instance_prompt", None) for one in trainings)


def reduced(caption: str, share: float) -> str:
    """The first words of a caption, rounded to a whole number of them."""
    words = caption.split()
    return caption if share >= 1 else " ".join(words[: round(share * len(words))])
