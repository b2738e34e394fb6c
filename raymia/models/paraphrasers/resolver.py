"""Models that make neighbors of texts: what they are, from their configs and headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raymia.models.causal.resolver import CausalCheckpoint, resolve_causal_lm
from raymia.models.causal.tokenizer_files import read_tokens, refuse_more_tokens
from raymia.models.checkpoint import Capabilities, FileCheckpoint
from raymia.models.fit import check_fit, described
from raymia.models.paraphrasers.loader import InfillerLoader, MaskFillerLoader
from raymia.models.saved_quantization import saved_quantization
from raymia.models.source import Reads, locate
from raymia.models.text_source import check_parts, files_of, read_config, text_fingerprint
from raymia.spec import InfillNeighbors, MaskFillNeighbors, ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

LOADS = "AutoModelForSeq2SeqLM"
"""The class of transformers that loads an encoder-decoder."""
DTYPE: Final = "float32"
"""Paraphrases are the same on every machine, as far as can be."""


@dataclass(frozen=True)
class MaskFillerCheckpoint(FileCheckpoint):
    """A T5-like model that fills masked spans; always in float32."""

    quantization: str = "none"
    dtype: str = DTYPE

    family = "mask filler"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.family, frozenset({"generation"}))

    def loader(self, pool: PoolSpec) -> MaskFillerLoader:
        return MaskFillerLoader(self, pool.batch_tokens)

    def describe(self) -> str:
        return self.family

    def take_fingerprint(self, once: Once) -> str:
        return text_fingerprint(
            {f"model/{p.name}": p for p in once(files_of, Path(self.path))},
            once,
            quantization=self.quantization,
            dtype=self.dtype,
            max_tokens=None,
            trust_remote_code=False,
        )


@dataclass(frozen=True)
class InfillerCheckpoint(FileCheckpoint):
    """A causal language model that fills spans; always in float32."""

    lm: CausalCheckpoint

    family = "infiller"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.family, frozenset({"generation"}))

    def loader(self, pool: PoolSpec) -> InfillerLoader:
        return InfillerLoader(self, pool.batch_tokens)

    def describe(self) -> str:
        return self.lm.describe()

    def take_fingerprint(self, once: Once) -> str:
        return self.lm.take_fingerprint(once)


Paraphraser = MaskFillerCheckpoint | InfillerCheckpoint


def resolve_paraphraser(
    spec: MaskFillNeighbors | InfillNeighbors, where: str, *, once: Once | None = None
) -> Paraphraser:
    """Find the files of the model that makes neighbors, and take its fingerprint.

    Parameters
    ----------
    once : of all models that are resolved together.

    Raises
    ------
    InputError
        If the folder is missing, is of another kind of model, or has weights in pickle files alone,
        or damaged.
    """
    once = once or Once()
    if isinstance(spec, InfillNeighbors):
        model = ModelSpec(model=spec.model, revision=spec.revision, dtype=DTYPE)
        lm = resolve_causal_lm(model, where, on_gpu=False, once=once)
        return InfillerCheckpoint(
            lm.path, lm.quantization, lm.dtype, lm, fingerprint=lm.fingerprint
        )
    path = once(locate, spec.model, spec.revision, Reads("own"), where=where)
    config = read_config(path, where)
    if not config.get("is_encoder_decoder"):
        raise InputError(
            f"{where}: {path} is a {config.get('model_type')} model, not an encoder-decoder such "
            "as T5"
        )
    check_parts(path, where, once)
    settings = config.get("quantization_config")
    saved_quantization(settings, path / "config.json", where, once)
    filler = described(LOADS, path, where, once)
    check_fit(filler, path, where, once)
    rows = getattr(filler.config, "vocab_size", None)
    if isinstance(rows, int):
        largest = once(read_tokens, path, where=where).largest
        refuse_more_tokens(largest, rows, str(path), str(path), where)
    return MaskFillerCheckpoint(str(path)).with_fingerprint(once)
