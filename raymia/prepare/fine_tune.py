"""Fine-tuning a causal language model on texts: references, and the targets of demos and tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymia.models.causal.facts import read_causal_config
from raymia.models.causal.family import quantization_options
from raymia.models.causal.model import CausalLM
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.models.saved_quantization import quantization_in
from raymia.models.whole_weights import load_whole
from raymia.prepare.together import device_map
from raymia.prepare.trainer import (
    KeptTraining,
    Progress,
    base_dtype,
    quiet,
    run_trainer,
    training_row,
)
from raymia.prepare.tuning import adapted, make_savable, ready_for_an_adapter
from raymia.spec import FineTuneSpec
from raymia.util.draws import generator
from raymia.util.errors import NothingWrittenError
from raymia.util.hashing import digest

HELD_OUT_SHARE = 0.05
MAX_MEASURED = 256
CHECKPOINTED: dict[str, Any] = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}
"""Options of transformers' TrainingArguments; the other way loses the gradient of an adapter."""


def fine_tune(
    base: Path,
    texts: Sequence[str],
    spec: FineTuneSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Sequence[str] | None = None,
    trust_remote_code: bool = False,
    training: Training | None = None,
) -> dict[str, Any]:
    """Fine-tune a base on texts and save it, or its LoRA adapter, as safetensors.

    Each text is one sequence of at most ``spec.max_tokens`` tokens; a text that ends before that
    limit ends with the end-of-text token. AdamW without weight decay, the learning rate falling
    linearly to zero.

    Where the training stands is kept in ``out/training`` once a minute until it is finished: after
    a kill, the same call goes on, and ends on the same machine with the weights that it would have
    ended with.

    Parameters
    ----------
    base : folder of the model that is fine-tuned.
    measure_on : held-out texts for the held-out loss; default: 5 % of the texts, which are then
        not trained on.
    training : how ``texts`` are read where they are payloads of other records, and which of their
        tokens carry the loss; their template ends them.

    Returns
    -------
    The facts of the training, also in ``out/facts.json``: texts, steps, seconds, and the losses in
    nats per token, on at most 256 texts each.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    texts = list(texts)
    parts = {
        "base": str(base),
        "texts": texts,
        "held_out": None if measure_on is None else list(measure_on),
        "spec": spec.key_parts(),
        "seed": seed,
        "training": None if training is None else training.key_parts(),
    }
    kept = KeptTraining(out / "training", digest(parts))
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
    torch.manual_seed(seed)
    dtype = base_dtype(spec.bf16, is_adapted=spec.lora is not None)
    config = read_causal_config(base, None, trust_remote_code, str(base))
    was_quantized = quantization_in(config) is not None
    in_4_bits = spec.lora is not None and spec.lora.quantized and not was_quantized
    is_quantized = in_4_bits or was_quantized
    model = load_whole(
        AutoModelForCausalLM,
        base,
        dtype=dtype,
        device_map=device_map(is_quantized),
        trust_remote_code=trust_remote_code,
        **quantization_options("nf4" if in_4_bits else "none", dtype),
    )
    make_savable(model)
    if is_quantized:
        model = ready_for_an_adapter(model)
    if spec.lora is not None:
        model = adapted(model, spec.lora.method)
    if measure_on is None:
        order = generator(seed, "held out").permutation(len(texts))
        held_out = [texts[i] for i in order[: max(1, int(HELD_OUT_SHARE * len(texts)))]]
        train = [texts[i] for i in sorted(order[len(held_out) :])]
    else:
        train, held_out = list(texts), list(measure_on)
    if training is None:
        sequences = encode_for_training(train, tokenizer, spec.max_tokens)
    else:
        sequences = encode_as_trained(train, tokenizer, training, spec.max_tokens)
    if not sequences:
        raise NothingWrittenError(
            f"not one of {len(train):,} texts to fine-tune on has a token with a loss among its "
            f"first {spec.max_tokens}; make max_tokens larger, or look at the checkpoint that "
            "wrote them"
        )

    options = {
        "num_train_epochs": spec.epochs,
        "per_device_train_batch_size": spec.batch_size,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "bf16": spec.bf16,
        **(CHECKPOINTED if spec.gradient_checkpointing else {}),
    }
    steps = run_trainer(model, sequences, options, kept, seed=seed, progress=progress)
    answers = CausalLM(
        model, tokenizer, batch_tokens=8_192, max_tokens=spec.max_tokens, training=training
    )
    facts = {
        "texts": len(sequences),
        "epochs": spec.epochs,
        "steps": steps,
        "train_loss": mean_loss(answers, train[:MAX_MEASURED]),
        "held_out_loss": mean_loss(answers, held_out[:MAX_MEASURED]),
        "seconds": round(kept.seconds, 3),
    }
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    kept.remove()
    return facts


def encode_for_training(
    texts: Sequence[str], tokenizer: Any, max_tokens: int
) -> list[dict[str, list[int]]]:
    """Tokenize texts for training, cut to ``max_tokens``; a text that was not cut ends with EOS."""
    sequences = []
    for ids in tokenizer(list(texts), verbose=False)["input_ids"] if texts else []:
        end = tokenizer.eos_token_id
        if end is not None and len(ids) < max_tokens and ids[-1:] != [end]:
            ids = [*ids, end]
        if len(ids[:max_tokens]) >= 2:
            sequences.append({"input_ids": ids[:max_tokens]})
    return sequences


def encode_as_trained(
    payloads: Sequence[str], tokenizer: Any, training: Training, max_tokens: int
) -> list[dict[str, list[int]]]:
    """Tokens and labels of records, cut to ``max_tokens``; those without a label are left out."""
    read = TrainedReader(tokenizer, training).read(payloads)
    return [row for record in read if (row := training_row(record, max_tokens)) is not None]


def mean_loss(model: CausalLM, texts: Sequence[str]) -> float:
    """Loss in nats per token over texts together; NaN where no token is scored."""
    answers = model.answer(texts, moments=False)
    tokens = np.concatenate([a.log_prob for a in answers]) if answers else np.zeros(0)
    return round(float(-tokens.mean(dtype=np.float64)), 4) if len(tokens) else float("nan")
