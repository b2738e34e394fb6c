"""What configs and headers say of a causal language model; nothing is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raymia.models.causal.tokenizer_files import FIX, read_tokens, regex_is_fixed
from raymia.models.fit import Described, check_fit, read_transformers_config
from raymia.models.saved_quantization import (
    quantization_in,
    refuse_unscaled,
    rounds_inputs,
    saved_quantization,
)
from raymia.models.source import (
    PROVENANCE,
    config_hash,
    content_hashes,
    model_weights_in,
)
from raymia.models.text_source import CONFIGS, files_of
from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError, first_line
from raymia.util.hashing import digest
from raymia.util.once import Once

LOADS = "AutoModelForCausalLM"
"""The class of transformers that loads it."""
CONTEXTS = (
    "max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "max_target_positions",
)  # fmt: skip
"""What configs call the longest input that a model was made for."""
LARGEST_CONTEXT = 10**7
"""Larger numbers stand for none."""
PADDED_POSITIONS = {
    "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Model types whose positions are counted from the one after the padding token's."""

LENGTH_DECIDES = {"longrope", "su"}
"""Names of rotary embeddings whose frequencies are others for all tokens of a long text."""
ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie",
    "megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
    "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Model types that have a language-model head, and look back alone only if ``is_decoder``."""
BOTH_WAYS = {"cpmant", "flaubert", "xlm", "xlnet"}
"""Model types with a language-model head whose positions see those after them; XLM not where its
config says ``causal``."""
OTHER_TASKS = re.compile(
    r"For(MaskedLM|PreTraining|NextSentencePrediction|(Sequence|Token|Image|Audio)Classification"
    r"|QuestionAnswering|MultipleChoice|RewardModel(ing)?)$"
)
"""Ends of names of classes that are no language models, whatever their weights would load as."""

LARGEST_OFFSET = 2
"""Rows of a table of positions that come before the first token's, in no family more."""

_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings|positions_embed)\.weight$")
_LIKE_POSITIONS = re.compile(r"(^|[._])(wpe|pos(itions?|itional)?_?(emb|enc|table)\w*)(\.weight)?$")
"""The same as code that comes with a model may call it."""
_OTHER_TOWERS = re.compile(r"(^|[._])(vision|visual|image|audio|encoder)")


@dataclass(frozen=True)
class CausalFacts:
    """What is known of a causal language model before it is loaded; of tokens, what an adapter says
    that brings a tokenizer or an embedding of its own.

    Attributes
    ----------
    model_type : transformers' name of the architecture.
    context : tokens per text that it was made for, or has positions for; None where nothing limits
        them.
    vocabulary : how many tokens it gives a probability to.
    parameters : numbers in its weights, without an adapter's; None of a GGUF file
        and of quantized weights.
    tokenizer : hash of all that a tokenizer can depend on.
    tokenization : hash of what decides how texts are cut into tokens; None where no tokenizer.json
        says it.
    largest_token : id that its tokenizer gives to a token that is no added one; None where no
        tokenizer.json says it.
    saved_as : how the weights were quantized when they were saved; None where they were not.
    own_code : whether code that came with it loads it, so that no model was built to compare its
        tensors with; or is left out, and transformers' own class of this name loads it. None where
        it came with no code.
    rounds_inputs : whether its layers round what enters them to whole numbers.
    frequencies_change : see :func:`frequencies_change`.
    """

    model_type: str
    context: int | None
    vocabulary: int
    parameters: int | None
    tokenizer: str
    tokenization: str | None
    saved_as: str | None = None
    own_code: Literal["loads", "left_out"] | None = None
    rounds_inputs: bool = False
    frequencies_change: int | None = None
    largest_token: int | None = None


def context_length(config: Any) -> int | None:
    """The longest input a model was made for; None where its config does not say.

    Parameters
    ----------
    config : of transformers.
    """
    text = config.get_text_config()
    for name in CONTEXTS:
        value = getattr(text, name, None)
        if isinstance(value, int) and 0 < value < LARGEST_CONTEXT:
            if text.model_type in PADDED_POSITIONS:
                return value - (text.pad_token_id or 0) - 1
            return value
    return None


def frequencies_change(config: Any) -> int | None:
    """The length from which on a model reads a whole text with other rotary frequencies, so that
    its answers on shorter texts would change beside a longer one; None where it has no such length.

    Parameters
    ----------
    config : of transformers.
    """
    text = config.get_text_config()
    said = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    found: list[int] = []
    for given in [said, *said.values()] if isinstance(said, Mapping) else []:
        if not isinstance(given, Mapping):
            continue  # a number of the one, beside which there are no others
        if {given.get("rope_type"), given.get("type")} & LENGTH_DECIDES:
            own = given.get("original_max_position_embeddings")
            at = own or getattr(text, "original_max_position_embeddings", None)
            found += [at] if isinstance(at, int) else []
    return min(found, default=None)


def read_facts(
    path: Path, gguf_file: str | None, where: str, once: Once, *, trust_remote_code: bool
) -> CausalFacts:
    """Read a folder's config, tokenizer and headers.

    Raises
    ------
    InputError
        If transformers knows no such architecture, it is none of a causal language model, its
        table of positions is shorter than its config says, its weights are not those that its
        config describes, or they were quantized in a way that cannot be read.
    """
    config = once(read_causal_config, path, gguf_file, trust_remote_code, where=where)
    vocabulary = int(config.get_text_config().vocab_size)
    context = context_length(config)
    tokenizer = tokenizer_hash(path, gguf_file, once)
    if gguf_file is not None:
        return CausalFacts(
            str(config.model_type), context, vocabulary, None, tokenizer, None,
            frequencies_change=frequencies_change(config),
        )  # fmt: skip
    _refuse_others(config, path, where)
    tensors = model_weights_in(path, where, once)
    if quantization_in(config) is not None:
        refuse_unscaled(tensors, path, where)
    saved_as = saved_quantization(quantization_in(config), path / "config.json", where, once)
    _check_positions(tensors, context, path, where)
    context = usable_positions(tensors, context)
    tokens = read_tokens(path, where)
    own_code = code_of_its_own(config, trust_remote_code)
    if own_code != "loads":
        model = Described(LOADS, config_hash(path, once), frozenset(tensors.items()), config)
        check_fit(model, path, where, once)
    return CausalFacts(
        model_type=str(config.model_type),
        context=context,
        vocabulary=vocabulary,
        parameters=_count(tensors) if saved_as is None else None,
        tokenizer=tokenizer,
        tokenization=tokens.tokenization,
        largest_token=tokens.largest,
        saved_as=saved_as,
        own_code=own_code,
        rounds_inputs=rounds_inputs(quantization_in(config)),
        frequencies_change=frequencies_change(config),
    )


def read_causal_config(
    path: Path, gguf_file: str | None, trust_remote_code: bool, where: str
) -> Any:
    """The config of a causal language model, by transformers.

    Raises
    ------
    InputError
        If it cannot be read, or says of no vocabulary.
    """
    config = read_transformers_config(path, gguf_file, trust_remote_code, where=where)
    try:
        text = config.get_text_config()
    except ValueError as error:
        raise InputError(
            f"{where}: {path / 'config.json'} describes several models of texts, and is no config "
            f"of one language model ({first_line(error)})"
        ) from error
    if not isinstance(getattr(text, "vocab_size", None), int):
        raise InputError(
            f"{where}: {path / 'config.json'} says of no vocabulary (vocab_size), so it is no "
            "config of a language model"
        )
    return config


def code_of_its_own(config: Any, trust_remote_code: bool) -> Literal["loads", "left_out"] | None:
    """What becomes of the code that came with a model, which nobody here knows."""
    if not getattr(config, "auto_map", None):
        return None
    return "loads" if trust_remote_code else "left_out"


def _count(tensors: Mapping[str, TensorHeader]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def _refuse_others(config: Any, path: Path, where: str) -> None:
    """Refuse what is no causal language model, by its config."""
    kind, classes = config.model_type, config.architectures or ()
    is_a_list = isinstance(classes, list | tuple)
    if not is_a_list or not all(isinstance(name, str) for name in classes):
        raise InputError(
            f"{where}: {path}/config.json: `architectures` should be a list of names, but is "
            f"{classes!r}"
        )
    why = None
    if getattr(config, "is_encoder_decoder", False):
        why = "it has an encoder, and raymia scores decoders alone"
    elif any(OTHER_TASKS.search(name) for name in classes):
        why = f"{', '.join(classes)} was trained for another task"
    elif kind in ENCODERS and not getattr(config, "is_decoder", False):
        why = "each token sees those after it; the config of a decoder says `is_decoder: true`"
    elif kind in BOTH_WAYS and not getattr(config, "causal", False):
        why = "each token sees those after it"
    if why is not None:
        raise InputError(f"{where}: {path} is a {kind} model, not a causal language model: {why}")


def _check_positions(
    tensors: Mapping[str, TensorHeader], context: int | None, path: Path, where: str
) -> None:
    """Refuse a table of positions that ends before the context does."""
    for name, tensor in tensors.items():
        is_table = len(tensor.shape) == 2 and _POSITIONS.search(name)
        if not is_table or _OTHER_TOWERS.search(name):
            continue
        if context is not None and tensor.shape[0] < context:
            raise InputError(
                f"{where}: {path / 'config.json'} says that the model reads {context:,} tokens, "
                f"but its table of positions, {name}, has {tensor.shape[0]:,}; copy the "
                "checkpoint's own config.json"
            )


def usable_positions(tensors: Mapping[str, TensorHeader], context: int | None) -> int | None:
    """Tokens that a model has positions for: its context, or where its config says none, what its
    table of positions has room for; None where it has no table either.

    A position beyond a table ends the process on a GPU, and no later text is answered.

    Parameters
    ----------
    context : as the config says it.
    """
    if context is not None:
        return context
    rows = [
        tensor.shape[0]
        for name, tensor in tensors.items()
        if len(tensor.shape) == 2
        and (_POSITIONS.search(name) or _LIKE_POSITIONS.search(name))
        and not _OTHER_TOWERS.search(name)
    ]
    return max(1, min(rows) - LARGEST_OFFSET) if rows else None


def tokenizer_hash(path: Path, gguf_file: str | None, once: Once) -> str:
    """Hash of all that a tokenizer can depend on."""
    files = {file.name: file for file in once(files_of, path) if file.suffix != ".safetensors"}
    if gguf_file is not None:
        files[gguf_file] = path / gguf_file
    content: dict[str, Any] = {**content_hashes(files, CONFIGS, PROVENANCE, once)}
    fixed = regex_is_fixed(path, once)
    return digest(content if fixed is None else {**content, FIX: fixed})
