"""Small checkpoints of many architectures, in many forms, against transformers one text at a time.

    python tools/architecture_sweep.py            # all architectures in all forms: minutes
    python tools/architecture_sweep.py --few      # a few of them

Each is made with random weights by transformers and PEFT, planned and loaded as an audit does it,
and asked about texts in batches; each text is then put to the model by transformers alone. It ends
with 1 where an answer is off by more than 1e-5, or a checkpoint is refused.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers

import raymia
from raymia.models.causal.beginnings import answer_alike
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import first_line

ASSETS = Path(raymia.__file__).parent / "demo" / "assets"
TOLERANCE = 1e-5
TEXTS = 5
SMALL: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32,
    "intermediate_size": 64, "ffn_dim": 64, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2,
    "num_layers": 2, "num_attention_heads": 2, "n_head": 2, "n_heads": 2, "attention_heads": 2,
    "num_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    "n_positions": 256, "max_seq_len": 256, "rotary_dim": 8, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "q_lora_rank": 8,
    "kv_lora_rank": 8, "qk_rope_head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "n_group": 1, "topk_group": 1, "state_size": 8, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0, "initializer_range": 0.2, "word_embed_proj_dim": 32,
    "attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    "resid_dropout": 0.0, "embed_dropout": 0.0, "dropout": 0.0, "is_decoder": True,
}  # fmt: skip
"""What makes a model small, by whatever names configs have for it."""
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {}, "gpt_neo": {"attention_types": [[["global", "local"], 1]]}, "gptj": {},
    "gpt_neox": {}, "gpt_bigcode": {}, "codegen": {}, "llama": {}, "mistral": {}, "mixtral": {},
    "qwen2": {}, "qwen2_moe": {}, "qwen3": {}, "qwen3_moe": {}, "gemma": {}, "gemma2": {},
    "gemma3_text": {}, "phi": {}, "phi3": {}, "falcon": {}, "bloom": {}, "opt": {}, "mpt": {},
    "cohere": {}, "cohere2": {}, "granite": {"logits_scaling": 8.0}, "granitemoe": {}, "olmo": {},
    "olmo2": {}, "olmoe": {}, "stablelm": {}, "starcoder2": {}, "glm": {}, "glm4": {},
    "nemotron": {}, "persimmon": {}, "biogpt": {}, "smollm3": {}, "helium": {}, "exaone4": {},
    "ernie4_5": {}, "arcee": {}, "seed_oss": {}, "deepseek_v2": {"first_k_dense_replace": 1},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "mamba": {}, "falcon_mamba": {}, "bert-generation": {}, "xglm": {},
}  # fmt: skip
"""transformers' names, with what else each needs to be small."""
Given = dict[str, Any]
"""What the audit file says of a checkpoint beside its folder."""
FUSED = {"gate_proj", "up_proj", "down_proj"}
"""Of experts that transformers holds as one tensor: PEFT takes all of these or none."""
FEW = ("gpt2", "llama", "gemma2", "falcon", "qwen3_moe", "mamba")


def small_config(name: str) -> Any:
    """A config of an architecture with a few thousand parameters."""
    kind = transformers.CONFIG_MAPPING[name]
    plain = kind()
    fixed = {key for key in SMALL if isinstance(getattr(kind, key, None), property)}
    settings = {k: value for k, value in SMALL.items() if hasattr(plain, k) and k not in fixed}
    layers = plain.to_dict().get("layer_types")
    if layers is not None:
        settings["layer_types"] = [*dict.fromkeys(layers), layers[0]][:2]
    return kind(**{**settings, **ARCHITECTURES[name]})


def plain(model: Any, folder: Path) -> Given:
    model.save_pretrained(folder)
    return {}


def sharded(model: Any, folder: Path) -> Given:
    model.save_pretrained(folder, max_shard_size="100KB")
    return {}


def bfloat16(model: Any, folder: Path) -> Given:
    model.to(torch.bfloat16).save_pretrained(folder)
    return {}


def adapter(method: str, **settings: Any) -> Callable[[Any, Path], Given]:
    """Saves a model, and an adapter of it beside."""

    def save(model: Any, folder: Path) -> Given:
        import peft

        model.save_pretrained(folder)
        made = getattr(peft, f"{method}Config")(
            task_type="CAUSAL_LM", target_modules=linears(model), **settings
        )
        adapted = peft.get_peft_model(model, made)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_" in name or "ia3_" in name:
                    weight.add_(torch.randn_like(weight) * 0.1)
        there = folder.with_name(f"{folder.name}-adapter")
        adapted.save_pretrained(there)
        return {"adapter": str(there)}

    return save


def linears(model: Any) -> list[str]:
    """Names of a layer's linear maps that PEFT can adapt, without the head."""
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module is not head
    }
    unfit = {"out_proj"} if "mamba" in model.config.model_type else set()
    if any(name.endswith("gate_up_proj") for name, _ in model.named_parameters()):
        unfit |= FUSED
    return sorted(names - unfit)[:3]


FORMS: dict[str, Callable[[Any, Path], Given]] = {
    "plain": plain, "sharded": sharded, "bfloat16": bfloat16,
    "lora": adapter("Lora", r=4), "dora": adapter("Lora", r=4, use_dora=True),
    "ia3": adapter("IA3", feedforward_modules=[]),
}  # fmt: skip


def off_by(name: str, form: str, folder: Path, texts: list[str], seed: int) -> float:
    """The largest difference between raymia's log-probabilities and those of transformers."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(small_config(name)).eval()
    given = FORMS[form](model, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS / "models" / "base")
    tokenizer.save_pretrained(folder)
    spec = ModelSpec(model=str(folder), dtype="float32", **given)
    found = resolve_causal_lm(spec, name, on_gpu=False)
    copies = [text.replace(" the ", " a ", 1) for text in texts]
    lm = found.loader(PoolSpec(batch_tokens=1_024)).load()
    answers = lm.answer(texts, moments=False)
    answers += answer_alike(lm, [*texts, *copies], [*range(len(texts))] * 2)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if "adapter" in given:
        from peft import PeftModel

        reference = PeftModel.from_pretrained(reference, given["adapter"])
    reference = reference.eval()
    return max(
        float(np.abs(answer.log_prob - one_text(reference, tokenizer, text)).max())
        for text, answer in zip([*texts, *texts, *copies], answers, strict=True)
    )


@torch.no_grad()
def one_text(model: Any, tokenizer: Any, text: str) -> Any:
    """Log-probabilities of a text's tokens after the first, by transformers alone."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    said = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return said[:-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()


def some_texts(seed: int) -> list[str]:
    table = pq.read_table(ASSETS / "text" / "austen.parquet", columns=["text"])
    chosen = random.Random(seed).sample(table["text"].to_pylist(), TEXTS)
    return [" ".join(text.split()[: 8 + 12 * n]) for n, text in enumerate(chosen)]


def sweep(names: list[str], forms: list[str], seed: int) -> Iterator[tuple[str, str, str | None]]:
    """Architecture, form, and what is wrong with it; None where nothing is."""
    texts = some_texts(seed)
    for name in names:
        for form in forms:
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    off = off_by(name, form, Path(scratch) / "model", texts, seed)
                    wrong = None if off <= TOLERANCE else f"off by {off:.2g}"
                except Exception as error:  # whatever it is, it is what is looked for
                    wrong = f"{type(error).__name__}: {first_line(error)}"
            yield name, form, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", action="store_true", help="a few architectures")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*ARCHITECTURES])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names = options.only or list(FEW if options.few else ARCHITECTURES)
    count, failed = 0, []
    for name, form, wrong in sweep(names, list(FORMS), options.seed):
        count += 1
        if wrong is not None:
            failed.append((name, form))
        print(f"{name:16} {form:9} {'equal' if wrong is None else wrong}", flush=True)
    print(f"{len(names)} architectures, {count} checkpoints, {len(failed)} not equal or refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
