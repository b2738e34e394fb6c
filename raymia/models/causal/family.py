"""Loading causal language models: a base once, and what is put on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from raymia.models.causal.adapters import AdapterSwitch
from raymia.models.causal.causality import changes_beside_others, refuse_looking_ahead
from raymia.models.causal.model import CausalLM
from raymia.models.causal.readings import Readings
from raymia.models.tokenizers import TokenizerSource
from raymia.models.whole_weights import load_whole
from raymia.util.errors import InputError
from raymia.util.optional import require

if TYPE_CHECKING:
    from raymia.models.causal.resolver import CausalCheckpoint


LOG = logging.getLogger(__name__)


class CausalLMFamily:
    """Causal models on one base, which is in memory once; one of them is ready at a time.

    Parameters
    ----------
    checkpoints : of one base, quantization and dtype.
    batch_tokens : padded tokens per forward pass, for each.
    """

    def __init__(
        self, checkpoints: Sequence[CausalCheckpoint], batch_tokens: Sequence[int]
    ) -> None:
        base = _load_base(checkpoints[0])
        tokenizers: dict[TokenizerSource, Any] = {}
        readings: dict[str, Readings] = {}
        self._adapters = [checkpoint.adapter for checkpoint in checkpoints]
        self._switch = AdapterSwitch(base, self._adapters)
        self._models = []
        for checkpoint, budget in zip(checkpoints, batch_tokens, strict=True):
            self._switch.use(checkpoint.adapter)
            source = checkpoint.tokenizer_source
            if source not in tokenizers:
                tokenizers[source] = source.load()
            model = CausalLM(
                self._switch.model,
                tokenizers[source],
                batch_tokens=budget,
                max_tokens=checkpoint.context,
                long_texts=checkpoint.long_texts,
                stride=checkpoint.stride,
                window_bos=checkpoint.window_bos,
                one_by_one=checkpoint.one_by_one,
                training=checkpoint.training,
                readings=readings.get(checkpoint.reading),
                twins=self._switch.twins,
            )
            readings[checkpoint.reading] = model.readings
            is_quantized = checkpoint.weights_are != "none"
            refuse_looking_ahead(model, checkpoint.label, is_quantized=is_quantized)
            if not model.one_by_one and changes_beside_others(model, is_quantized=is_quantized):
                LOG.info("%s: asked one text at a time: batches change it", checkpoint.label)
                model.one_by_one = True
            self._models.append(model)

    def use(self, number: int) -> CausalLM:
        """The model of a checkpoint, ready to be asked; the one before is so no longer."""
        self._switch.use(self._adapters[number])
        return self._models[number]


def load_causal_lm(checkpoint: CausalCheckpoint, *, batch_tokens: int) -> CausalLM:
    """Load a checkpoint onto the GPU where there is one, else onto the CPU.

    See :attr:`CausalCheckpoint.one_by_one` for those that are asked one text at a time.
    """
    return CausalLMFamily([checkpoint], [batch_tokens]).use(0)


def _load_base(checkpoint: CausalCheckpoint) -> Any:
    """The model without its adapter."""
    import transformers
    from transformers import AutoModelForCausalLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, checkpoint.dtype)
    where = checkpoint.path
    try:
        model = load_whole(
            AutoModelForCausalLM,
            where,
            dtype=dtype,
            device_map="auto" if torch.cuda.is_available() else None,
            trust_remote_code=checkpoint.trust_remote_code,
            **quantization_options(checkpoint.quantization, dtype),
            **gguf_options(checkpoint.gguf_file),
        )
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and bitsandbytes each raise their own
        raise InputError(
            f"{where}: cannot be loaded as a causal language model: {error}"
        ) from error
    model.eval()
    model.generation_config = neutral_generation(model.generation_config)
    return model


def neutral_generation(config: Any) -> Any:
    """Keep a checkpoint's special tokens and drop its taste (temperature, repetition penalty, ...).

    What is sampled must be the model's distribution as the audit file says, not as its authors
    preferred it for chat.
    """
    from transformers import GenerationConfig

    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return GenerationConfig(**{name: getattr(config, name, None) for name in tokens})


def gguf_options(name: str | None) -> dict[str, Any]:
    """What transformers needs so that it reads a GGUF file, all of it unpacked. Left to itself it
    keeps weights packed where it can have kernels from the model hub: that is code which nobody
    allowed, and other answers on machines that have them."""
    if name is None:
        return {}
    import transformers

    options: dict[str, Any] = {"gguf_file": name}
    if hasattr(transformers, "GgufConfig"):  # earlier ones unpack in any case
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def quantization_options(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """What transformers is told of a quantization. It is told nothing where none is asked for: None
    would stand for that of the checkpoint's own config too."""
    if name == "none":
        return {}
    require("bitsandbytes", "quantized models")
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=name,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    }
