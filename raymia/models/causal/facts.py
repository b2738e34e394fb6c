"""What configs and headers say of a causal language model; nothing is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.saved_quantization import saved_quantization
from raymia.models.source import PROVENANCE, content_hashes, read_json, weights_in
from raymia.models.text_source import CONFIGS, files_of
from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.once import Once

TOKENIZER = "tokenizer.json"
TOKENIZATION = ("normalizer", "pre_tokenizer", "post_processor", "model")
"""Parts of tokenizer.json that decide which tokens a text becomes. Added tokens are left out: a pad
token that fine-tuning added changes no text, and attacks compare the tokens of each record."""

CONTEXTS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
"""What configs call the longest input that a model was made for."""
LARGEST_CONTEXT = 10**7
"""Larger numbers stand for none."""
PADDED_POSITIONS = {
    "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Model types whose positions are counted from the one after the padding token's."""

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

_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings|positions_embed)\.weight$")
_OTHER_TOWERS = re.compile(r"(^|[._])(vision|visual|image|audio|encoder)")


@dataclass(frozen=True)
class CausalFacts:
    """What is known of a causal language model before it is loaded.

    Attributes
    ----------
    model_type : transformers' name of the architecture.
    context : tokens per text that it was made for; None where nothing limits them.
    vocabulary : how many tokens it gives a probability to.
    parameters : numbers in its weights, without an adapter's; None of a GGUF file
        and of quantized weights.
    tokenizer : hash of all that a tokenizer can depend on.
    tokenization : hash of what decides how texts are cut into tokens; None where no tokenizer.json
        says it.
    saved_as : how the weights were quantized when they were saved; None where they were not.
    """

    model_type: str
    context: int | None
    vocabulary: int
    parameters: int | None
    tokenizer: str
    tokenization: str | None
    saved_as: str | None = None


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


def read_facts(
    path: Path, gguf_file: str | None, where: str, once: Once, *, trust_remote_code: bool
) -> CausalFacts:
    """Read a folder's config, tokenizer and headers.

    Raises
    ------
    InputError
        If transformers knows no such architecture, it is none of a causal language model, its
        table of positions is shorter than its config says, or its weights were quantized in a way
        that cannot be read.
    """
    from transformers import AutoConfig

    source = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **source)
        vocabulary = int(config.get_text_config().vocab_size)
    except Exception as error:  # of any kind, by what is damaged or unknown
        why = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(
            f"{where}: transformers cannot read the config of {path} ({type(error).__name__}: "
            f"{why}); copy the files again, or update transformers"
        ) from error
    context = context_length(config)
    tokenizer = _tokenizer(path, gguf_file, once)
    if gguf_file is not None:
        return CausalFacts(str(config.model_type), context, vocabulary, None, tokenizer, None)
    _refuse_others(config, path, where)
    saved_as = saved_quantization(_quantization_in(config), path / "config.json", where, once)
    tensors = weights_in(path, where, once)
    _check_positions(tensors, context, path, where)
    return CausalFacts(
        model_type=str(config.model_type),
        context=context,
        vocabulary=vocabulary,
        parameters=_count(tensors) if saved_as is None else None,
        tokenizer=tokenizer,
        tokenization=_tokenization(path, where),
        saved_as=saved_as,
    )


def _count(tensors: Mapping[str, TensorHeader]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def _quantization_in(config: Any) -> Any:
    """Where transformers looks for it."""
    places = (config, config.get_text_config(decoder=True))
    found = (getattr(place, "quantization_config", None) for place in places)
    return next((settings for settings in found if settings is not None), None)


def _refuse_others(config: Any, path: Path, where: str) -> None:
    """Refuse what is no causal language model, by its config."""
    kind, classes = config.model_type, config.architectures or ()
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


def _tokenizer(path: Path, gguf_file: str | None, once: Once) -> str:
    """Hash of all that a tokenizer can depend on."""
    files = {file.name: file for file in once(files_of, path) if file.suffix != ".safetensors"}
    if gguf_file is not None:
        files[gguf_file] = path / gguf_file
    return digest(content_hashes(files, CONFIGS, PROVENANCE, once))


def _tokenization(path: Path, where: str) -> str | None:
    file = path / TOKENIZER
    if not file.is_file():
        return None
    content = read_json(file, where)
    return digest({part: content.get(part) for part in TOKENIZATION})
