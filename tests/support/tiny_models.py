"""Small models for tests, and the plain transcription that raymia's answers are held against."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    FalconConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GraniteConfig,
    LlamaConfig,
)

import raymia
from raymia.models.causal.facts import CausalFacts
from raymia.models.causal.resolver import CausalCheckpoint

ASSETS = Path(raymia.__file__).parent / "demo" / "assets"
BASE = ASSETS / "models" / "base"
PARAPHRASER = ASSETS / "models" / "paraphraser"

_GPT2 = {
    "vocab_size": 2048, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
_LLAMA = {
    "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_GPTJ = {"vocab_size": 2048, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128,
         "rotary_dim": 8, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
_FALCON = {
    "vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_FALCON_H1 = {
    **_LLAMA, "mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8,
    "embedding_multiplier": 5.0,
}  # fmt: skip


def config(kind, **overrides):
    """A tiny config; the wide initialisation makes logits that differ from token to token."""
    wide = {"initializer_range": 0.3}
    kinds = {
        "gpt2": lambda: GPT2Config(**{**_GPT2, **wide, **overrides}),
        "llama": lambda: LlamaConfig(**{**_LLAMA, **wide, **overrides}),
        "gptj": lambda: GPTJConfig(**{**_GPTJ, **wide, **overrides}),
        "falcon": lambda: FalconConfig(**{**_FALCON, **wide, "alibi": False, **overrides}),
        "falcon-alibi": lambda: FalconConfig(**{**_FALCON, **wide, "alibi": True, **overrides}),
        "falcon-h1": lambda: FalconH1Config(**{**_FALCON_H1, **wide, **overrides}),
        "gemma2": lambda: Gemma2Config(**{**_LLAMA, **wide, "head_dim": 16, **overrides}),
        "cohere": lambda: CohereConfig(**{**_LLAMA, **wide, **overrides}),
        "granite": lambda: GraniteConfig(**{**_LLAMA, **wide, "logits_scaling": 8.0, **overrides}),
    }
    return kinds[kind]()


def with_an_end(tokenizer):
    """A tokenizer that puts an end of text after each text, as T5's and some of Llama's do, and
    before it, as a beginning."""
    ends = copy.deepcopy(tokenizer)
    ends._tokenizer.post_processor = TemplateProcessing(
        single="<end> $A <end>", special_tokens=[("<end>", tokenizer.eos_token_id)]
    )
    return ends


def with_a_beginning(tokenizer):
    """A tokenizer that begins texts with a token of its own."""
    begins = copy.deepcopy(tokenizer)
    begins._tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", tokenizer.bos_token_id)]
    )
    return begins


def beginning_model(folder):
    """The shipped base with such a tokenizer; returns the folder."""
    shutil.copytree(BASE, folder, copy_function=shutil.copyfile)
    with_a_beginning(AutoTokenizer.from_pretrained(BASE)).save_pretrained(folder)
    return Path(folder)


def save_tiny(folder, kind="gpt2", *, seed=0, **overrides):
    """Save a randomly initialised model with the shipped tokenizer; returns the folder."""
    key = (kind, seed, repr(sorted(overrides.items())))
    if key not in _SAVED:
        saved = TemporaryDirectory()
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config(kind, **overrides)).save_pretrained(saved.name)
        AutoTokenizer.from_pretrained(BASE).save_pretrained(saved.name)
        _SAVED[key] = saved, torch.get_rng_state()
    saved, state = _SAVED[key]
    shutil.copytree(saved.name, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    torch.set_rng_state(state)  # as it is after a model is made
    return Path(folder)


_SAVED = {}
"""By what was asked for, a folder to copy, and what torch draws next: one is made of each."""


def save_adapter(folder, base, *, seed=0, method="Lora", **settings):
    """Save an adapter of a base whose weights are all random; returns the folder.

    ``method`` is the name of a config of PEFT without its end; LoRA has a rank of 4.
    """
    import peft

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    defaults = {"r": 4, "lora_alpha": 8} if method == "Lora" else {}
    config = getattr(peft, f"{method}Config")
    made = config(**{**defaults, "task_type": "CAUSAL_LM", **settings})
    adapted = peft.get_peft_model(model, made)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.1)
            elif "ia3_" in name:
                weight.uniform_(0.5, 1.5)
            elif weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    adapted.save_pretrained(folder)
    return Path(folder)


def checkpoint(path, **overrides):
    settings = {
        "adapter": None, "quantization": "none", "dtype": "float32", "max_tokens": None,
        "trust_remote_code": False, "facts": CausalFacts("gpt2", 256, 2048, None, "", None),
    }  # fmt: skip
    return CausalCheckpoint(**{"path": str(path), **settings, **overrides})


def fingerprint(checkpoint):
    """That of a checkpoint's files as they are now."""
    return checkpoint.with_fingerprint().fingerprint


@dataclass(frozen=True)
class PlainAnswer:
    """What :func:`plain_answer` finds, float64."""

    token_ids: list[int]
    log_prob: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    top1: np.ndarray


@torch.no_grad()
def plain_answer(model, tokenizer, text, max_tokens=None):
    """One text, one forward pass, the whole table of logits: the definition, token by token."""
    ids = tokenizer(text)["input_ids"][:max_tokens]
    logits = model(input_ids=torch.tensor([ids])).logits[0].float()
    log_p = torch.log_softmax(logits, dim=-1).double().numpy()
    log_prob, mean, std, top1 = [], [], [], []
    for position, label in enumerate(ids[1:]):
        row = log_p[position]
        p = np.exp(row)
        mu = float((p * row).sum())
        log_prob.append(row[label])
        mean.append(mu)
        std.append(float(np.sqrt((p * (row - mu) ** 2).sum())))
        top1.append(int(row.argmax()) == label)
    return PlainAnswer(ids[1:], *(np.array(c) for c in (log_prob, mean, std, top1)))


def passages(count, start=0):
    """Passages that no shipped model has read."""
    return _passages()[start : start + count]


@cache
def _passages():
    table = pq.read_table(ASSETS / "text" / "austen.parquet").to_pydict()
    rows = zip(table["text"], table["split"], strict=True)
    return [text for text, split in rows if split == "audit"]
