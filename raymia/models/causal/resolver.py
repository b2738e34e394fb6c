"""Causal language models in folders: what they are, from their configs and headers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymia.models.causal.adapter_fit import DescribedAdapter, check_adapter
from raymia.models.causal.adapters import WEIGHTS, is_off_at_first
from raymia.models.causal.facts import (
    LOADS,
    CausalFacts,
    code_of_its_own,
    read_causal_config,
    read_facts,
    tokenizer_hash,
)
from raymia.models.causal.loader import CausalLMLoader
from raymia.models.causal.tokenizer_files import (
    FIX,
    is_another,
    read_tokens,
    refuse_more_tokens,
    regex_is_fixed,
    tokenizer_files,
)
from raymia.models.causal.training import NO_WORDS, Training
from raymia.models.checkpoint import Capabilities, FileCheckpoint
from raymia.models.fit import Described, is_quantizable
from raymia.models.saved_quantization import refuse_twice
from raymia.models.source import (
    ADAPTER_CONFIG,
    Reads,
    config_hash,
    file_hash,
    locate,
    read_json,
    weights_in,
)
from raymia.models.text_source import check_parts, files_of, read_config, text_fingerprint
from raymia.models.tokenizers import TokenizerSource, largest_token, tokenizer_of
from raymia.spec import LongTexts, ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.once import Once
from raymia.util.optional import require

GIVES = frozenset(
    {
        "moments",
        "token_ids",
        "tokenizer",
        "weights",
        "gradients",
        "words",
        "prefixes",
        "generation",
    }
)


@dataclass(frozen=True)
class CausalCheckpoint(FileCheckpoint):
    """A causal language model, with or without an adapter.

    Attributes
    ----------
    path : folder with config, tokenizer and safetensors (of the base where there is an adapter).
    adapter : folder of a PEFT adapter, or None.
    long_texts, stride, window_bos : as the audit file has them.
    gguf_file : name of a GGUF file in the folder, which then stands for everything else in it.
    facts : what configs and headers say of the base.
    virtual_tokens : tokens that the adapter puts before each text.
    training : how records are read; None reads plain texts.
    rows : of the embedding that the adapter brings; None where it leaves the base's as it is.
    own_tokenizer : whether the adapter brings a tokenizer that may make other tokens of a text than
        the base's.
    """

    adapter: str | None
    facts: CausalFacts
    max_tokens: int | None
    trust_remote_code: bool
    long_texts: LongTexts = "cut"
    stride: int | None = None
    window_bos: bool = False
    gguf_file: str | None = None
    virtual_tokens: int = 0
    training: Training | None = None
    rows: int | None = None
    own_tokenizer: bool = False

    family = "causal"

    def read_as(self, training: Training | None, once: Once | None = None) -> CausalCheckpoint:
        """The same for records that are read as a training did."""
        return replace(self, training=training).with_fingerprint(once)

    @property
    def tokenizer_folder(self) -> str:
        """Where its tokenizer is."""
        return self.adapter if self.own_tokenizer and self.adapter is not None else self.path

    @property
    def tokenizer_source(self) -> TokenizerSource:
        gguf_file = None if self.own_tokenizer else self.gguf_file
        return TokenizerSource(self.tokenizer_folder, self.trust_remote_code, gguf_file)

    @property
    def tokenizer_content(self) -> str:
        """Hash of all that the tokenizer can depend on."""
        return self.facts.tokenizer

    @property
    def reading(self) -> str:
        training = None if self.training is None else self.training.key_parts()
        return digest([self.tokenizer_content, self.trust_remote_code, training])

    @property
    def label(self) -> str:
        return self.adapter or self.path

    @property
    def adapter_places(self) -> tuple[str, ...]:
        return () if self.adapter is None else (self.adapter,)

    @property
    def folders(self) -> list[Path]:
        return [Path(folder) for folder in (self.path, self.adapter) if folder is not None]

    @property
    def weights_are(self) -> str:
        """How the weights are quantized in memory, or "none"."""
        return self.facts.saved_as or self.quantization

    @property
    def one_by_one(self) -> bool:
        """Whether it is asked one text at a time, because a text's answer depends on its batch:
        LLM.int8 decides over all of it which activation columns it keeps in 16 bits, and what
        rounds inputs to whole numbers makes a step of what rounding changes in the last digit."""
        return self.quantization == "int8" or self.facts.rounds_inputs

    @property
    def capabilities(self) -> Capabilities:
        lacks = {}
        if self.weights_are != "none":
            lacks["gradients"] = (
                f"{self.weights_are} weights have no gradient; audit the checkpoint unquantized"
            )
        if self.training is not None and self.training.format == "tokens":
            lacks["words"] = NO_WORDS
        gives = GIVES - {*lacks}
        if self.training is not None and self.training.format == "preference":
            gives |= {"pairs"}
        return Capabilities(self.family, gives, lacks)

    def loader(self, pool: PoolSpec) -> CausalLMLoader:
        return CausalLMLoader(self, pool.batch_tokens)

    @property
    def tokenization(self) -> str | None:
        return self.facts.tokenization

    @property
    def context(self) -> int | None:
        """Tokens of a text that are read at once; None where nothing limits them."""
        made_for = self.facts.context
        left = None if made_for is None else made_for - self.virtual_tokens
        return min((n for n in (self.max_tokens, left) if n is not None), default=None)

    def describe(self) -> str:
        facts = self.facts
        size = "" if facts.parameters is None else f", {facts.parameters:,} parameters"
        context = "" if self.context is None else f", context {self.context:,}"
        saved = "" if facts.saved_as is None else f", saved as {facts.saved_as}"
        code = {
            "loads": ", by code of its own: compared with its weights when it is loaded",
            "left_out": ", by transformers' own code: the code that came with it is not run",
            None: "",
        }
        return f"{facts.model_type}{size}{saved}{context}{code[facts.own_code]}"

    def take_fingerprint(self, once: Once) -> str:
        folder = Path(self.path)
        mine = once(files_of, folder)
        if self.gguf_file is not None:
            # transformers still takes some tokenizer settings from files beside the GGUF file.
            mine = sorted(
                [folder / self.gguf_file, *(p for p in mine if p.suffix != ".safetensors")]
            )
        parts = {f"model/{p.name}": p for p in mine}
        if self.adapter is not None:
            parts |= {f"adapter/{p.name}": p for p in once(files_of, Path(self.adapter))}
        # Named only where they are used: evidence from before there were windows keeps its key, and
        # that on weights without their scales, on tokens of the base's tokenizer, on those of a
        # Mistral tokenizer that transformers cuts by another regex or may, on logits that
        # were rounded to 16 bits, on weights of 4 bits that a CPU may have rounded once more, with
        # the frequencies of a longer text, or by an adapter that missed what invokes it, has
        # another.
        more: dict[str, Any] = {} if self.long_texts == "cut" else {"windows": self.stride}
        if self.window_bos:
            more["window_bos"] = True
        if self.facts.saved_as is not None:
            more["saved_as"] = self.facts.saved_as
        if self.training is not None:
            more["training"] = self.training.key_parts()
        if self.adapter is not None and once(is_off_at_first, self.adapter):
            more["beginnings"] = "never kept"
        if self.own_tokenizer:
            more["tokenizer"] = "adapter"
        fixed = regex_is_fixed(Path(self.tokenizer_folder), once)
        if fixed is not None:
            more[FIX] = fixed
        if self.dtype != "float32":
            more["logits"] = "float32"
        if {self.quantization, self.facts.saved_as} & {"nf4", "fp4"}:
            more["4 bits"] = "as asked"
        changes = self.facts.frequencies_change
        if changes is not None and (self.context is None or self.context > changes):
            more["frequencies"] = "of each text alone"
        return text_fingerprint(
            parts,
            once,
            quantization=self.quantization,
            dtype=self.dtype,
            max_tokens=self.max_tokens,
            trust_remote_code=self.trust_remote_code,
            **more,
        )


def resolve_causal_lm(
    spec: ModelSpec, where: str, *, on_gpu: bool, once: Once | None = None
) -> CausalCheckpoint:
    """Find a causal language model's files, refuse what may not be loaded, and take its
    fingerprint.

    Parameters
    ----------
    spec : the model as the audit file has it.
    where : the key it stands under, for messages.
    on_gpu : whether its pool has GPUs; decides what dtype ``auto`` is.
    once : of all checkpoints that are resolved together.

    Raises
    ------
    InputError
        If a folder is missing, has no config, is of another kind of model, or has weights in pickle
        files alone, damaged, or other than its config describes.
    """
    once = once or Once()
    reads = Reads("own" if spec.gguf_file is None else "none", spec.gguf_file)
    path = once(locate, spec.model, spec.revision, reads, where=where)
    facts = once(_facts, path, spec.gguf_file, spec.trust_remote_code, once, where=where)
    refuse_twice(facts.saved_as, spec.quantization, path, where)
    if spec.gguf_file is not None and spec.quantization != "none":
        raise InputError(
            f"{where.removesuffix('.model')}.quantization: {path / spec.gguf_file} is unpacked as "
            f"it is read, and is not quantized anew; leave out {spec.quantization!r}, or give the "
            "model in safetensors"
        )
    if spec.quantization != "none":
        once(require, "bitsandbytes", "quantized models", where=where)
        once(_refuse_unquantizable, path, spec.trust_remote_code, once, where=where)
    adapter, virtual_tokens, rows, own_tokenizer = None, 0, None, False
    if spec.adapter is not None:
        key = f"{where.removesuffix('.model')}.adapter"
        if not isinstance(spec.adapter, str):
            raise InputError(
                f"{key}: a language model has one adapter, and {len(spec.adapter)} are listed; "
                "merge them with PEFT (add_weighted_adapter), and name the merged one"
            )
        adapter = once(locate, spec.adapter, None, Reads("own"), where=key)
        virtual_tokens = once(_virtual_tokens, adapter, once, where=key)
        once(require, "peft", "adapters", where=key)
        rows = _fitting(adapter, path, spec.gguf_file, spec.trust_remote_code, once, where=key)
        tokenizer = tokenizer_files(adapter, once)
        if tokenizer.is_whole and is_another(tokenizer, tokenizer_files(path, once), once):
            own_tokenizer = True
            tokens = read_tokens(adapter, key)
            facts = replace(
                facts,
                tokenizer=tokenizer_hash(adapter, None, once),
                tokenization=tokens.tokenization,
                largest_token=tokens.largest,
            )
        if rows is not None:
            facts = replace(facts, vocabulary=rows)
    checkpoint = CausalCheckpoint(
        path=str(path),
        adapter=None if adapter is None else str(adapter),
        quantization=spec.quantization,
        dtype=spec.dtype if spec.dtype != "auto" else ("bfloat16" if on_gpu else "float32"),
        max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code,
        long_texts=spec.long_texts,
        stride=spec.stride,
        window_bos=spec.window_bos,
        gguf_file=spec.gguf_file,
        facts=facts,
        virtual_tokens=virtual_tokens,
        rows=rows,
        own_tokenizer=own_tokenizer,
    )
    _refuse_more_tokens(checkpoint, where)
    limit = checkpoint.context
    if on_gpu and limit is None and facts.own_code == "loads":
        raise InputError(
            f"{where.removesuffix('.model')}.max_tokens: neither the config nor a table of "
            f"positions says how many tokens {path} reads, whose code nobody here knows; on a GPU "
            "a longer text would end the process, so give the number"
        )
    if spec.stride is not None and limit is not None and spec.stride >= limit:
        raise InputError(
            f"{where.removesuffix('.model')}.stride: {spec.stride} is not less than the {limit} "
            "tokens that the model reads at once, so the first token of a window would have no "
            "context; give a smaller stride"
        )
    return checkpoint.with_fingerprint(once)


def _refuse_more_tokens(checkpoint: CausalCheckpoint, where: str) -> None:
    facts = checkpoint.facts
    is_unpacked = checkpoint.gguf_file is not None and not checkpoint.own_tokenizer
    if facts.own_code == "loads" or is_unpacked:
        return
    largest = facts.largest_token
    if largest is None:
        largest = largest_token(tokenizer_of(checkpoint))
    folder = checkpoint.tokenizer_folder
    refuse_more_tokens(largest, facts.vocabulary, folder, checkpoint.label, where)


def _facts(
    path: Path, gguf_file: str | None, trust_remote_code: bool, once: Once, where: str
) -> CausalFacts:
    if gguf_file is None:
        read_config(path, where)
        check_parts(path, where, once)
    else:
        _check_gguf(path, gguf_file, where)
    return read_facts(path, gguf_file, where, once, trust_remote_code=trust_remote_code)


def _check_gguf(path: Path, name: str, where: str) -> None:
    """Refuse a GGUF file that is not there, or that this installation cannot read."""
    if not (path / name).is_file():
        raise InputError(
            f"{where}: no file {name} in {path} (found: "
            f"{', '.join(sorted(p.name for p in path.glob('*.gguf'))[:8]) or 'no GGUF file'})"
        )
    require("gguf", "GGUF files", where)


def _virtual_tokens(path: Path, once: Once, where: str) -> int:
    """Refuse a folder that is no PEFT adapter in safetensors; what one puts before each text."""
    if not (path / ADAPTER_CONFIG).is_file():
        raise InputError(f"{where}: {path} has no {ADAPTER_CONFIG}, so it is no PEFT adapter")
    config = read_json(path / ADAPTER_CONFIG, where)
    weights_in(path, where, once, WEIGHTS)
    count = config.get("num_virtual_tokens") or 0
    if not isinstance(count, int):
        raise InputError(
            f"{where}: {path / ADAPTER_CONFIG}: `num_virtual_tokens` is {count!r}, no number"
        )
    return count


def _fitting(
    adapter: Path,
    base: Path,
    gguf_file: str | None,
    trust_remote_code: bool,
    once: Once,
    where: str,
) -> int | None:
    """Refuse an adapter of another base; rows of the embedding that it brings, if any."""
    config = once(read_causal_config, base, gguf_file, trust_remote_code, where=where)
    if code_of_its_own(config, trust_remote_code) == "loads":
        return None
    tensors = weights_in(adapter, where, once, WEIGHTS)
    described = DescribedAdapter(
        base=_without_weights(base, gguf_file, config, once),
        config_hash=file_hash(adapter / ADAPTER_CONFIG, once),
        tensors=frozenset(tensors.items()),
        folder=adapter,
    )
    return check_adapter(described, where, once)


def _refuse_unquantizable(path: Path, trust_remote_code: bool, once: Once, *, where: str) -> None:
    config = once(read_causal_config, path, None, trust_remote_code, where=where)
    if code_of_its_own(config, trust_remote_code) == "loads":
        return  # seen when it is loaded
    if not once(is_quantizable, _without_weights(path, None, config, once)):
        raise InputError(
            f"{where}: bitsandbytes quantizes no layer of a {config.model_type}, so that the whole "
            "weights would be asked; leave out `quantization`"
        )


def _without_weights(path: Path, gguf_file: str | None, config: Any, once: Once) -> Described:
    """A model as its config describes it, of which no tensor is compared."""
    content = config_hash(path, once) if gguf_file is None else file_hash(path / gguf_file, once)
    return Described(LOADS, content, frozenset(), config)
