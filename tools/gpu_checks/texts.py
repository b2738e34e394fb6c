"""Checks and rates of language models on one device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.measure import Timing
from benchmarks.texts import TextBench, time_adapter, time_harness, time_limit, time_padded
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import raymia
from gpu_checks.parts import Found, Part, Setting, peak_memory, rounded, seconds_of
from gpu_checks.shapes import DEPTH_CHECKED, LARGE, quantized, text_config, text_model
from raymia.demo.text import ASSETS, audit_passages
from raymia.models.causal.fold import After, Fold, TorchFold
from raymia.models.causal.head import fold_for, product
from raymia.models.causal.model import CausalLM
from raymia.models.causal.tiles import tile_of

TOKENS = 8_192
"""Per forward pass."""
FULL_RATE = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Multiplications and additions in bfloat16 that a card can do in a second, as its maker says."""

Tensor = torch.Tensor


def text_parts() -> list[Part]:
    """In the order of what is to be known first."""
    kinds = [(name, "bf16") for name in LARGE]
    kinds += [("Llama 3 8B", "nf4"), ("Llama 3 8B", "int8"), ("Qwen3 8B", "nf4")]
    answers = [Part(f"answers: {name}", 0.5, partial(check_answers, name)) for name in LARGE]
    rates = [
        Part(f"rates: {name}, {kind}", 1.0, partial(measure, name, kind)) for name, kind in kinds
    ]
    beside = [Part("beside vLLM: Qwen3 8B", 2.0, beside_vllm)]
    return [
        Part("kernels", 0.5, check_kernels),
        *answers,
        *rates,
        Part("T5 base", 0.5, measure_t5),
        *beside,
    ]


# ---------------------------------------------------------------------------- kernels


def check_kernels(setting: Setting) -> Found:
    """Each fold against float64 from the same numbers, and what it takes at 152k."""
    device = setting.device
    tokens, vocabulary, width = (16, 2_048, 64) if setting.is_tiny else (TOKENS, 151_936, 4_096)
    dtype = torch.bfloat16
    random = torch.Generator(device).manual_seed(0)
    hidden = torch.randn((tokens, width), generator=random, device=device).to(dtype)
    matrix = torch.randn((vocabulary, width), generator=random, device=device).mul_(0.02).to(dtype)
    labels = torch.randint(vocabulary, (tokens,), generator=random, device=device)
    found: Found = {"fold": fold_for(device).__name__}
    few = slice(0, 64)
    for after in (After(), After("cap", 30.0), After("multiply", 0.0625)):
        right = _exact(hidden[few], matrix, labels[few], after)
        for fold in {TorchFold, fold_for(device)}:
            answers = _folded(fold, hidden[few], matrix, labels[few], after)
            gaps = [
                float((a.double() - b).abs().max()) for a, b in zip(answers, right, strict=True)
            ]
            found[f"{fold.__name__}, {after.kind}: largest error"] = max(gaps)
            if max(gaps) > 1e-3:
                raise AssertionError(f"{fold.__name__} is off by {max(gaps):.2g} with {after}")
    for fold in {TorchFold, fold_for(device)}:
        run = partial(_folded, fold, hidden, matrix, labels, After())
        found[f"{fold.__name__}: ms for {tokens} tokens"] = seconds_of(run, device) * 1e3
    found["peak GiB"] = peak_memory(device)
    return rounded(found)


def _folded(
    fold: Any, hidden: Tensor, matrix: Tensor, labels: Tensor, after: After
) -> list[Tensor]:
    vocabulary, width = matrix.shape
    tile = tile_of(hidden.device.type, vocabulary, width, matrix.itemsize, copies=fold.copies)
    columns = []
    for start in range(0, len(labels), tile.rows):
        rows = slice(start, start + tile.rows)
        made: Fold = fold(labels[rows], after, moments=True)
        for at in range(0, len(matrix), tile.columns):
            made.add(product(hidden[rows], matrix[at : at + tile.columns]), None, at)
        found = made.columns()
        assert found.mean is not None
        assert found.std is not None
        columns.append((found.log_prob, found.mean, found.std))
    return [torch.cat(column) for column in zip(*columns, strict=True)]


def _exact(hidden: Tensor, matrix: Tensor, labels: Tensor, after: After) -> list[Tensor]:
    parts = [hidden.double() @ part.double().T for part in torch.split(matrix, 16_384)]
    log_p = after.of(torch.cat(parts, dim=1)).log_softmax(-1)
    mean = (log_p.exp() * log_p).sum(-1)
    variance = (log_p.exp() * (log_p - mean[:, None]) ** 2).sum(-1)
    return [log_p.gather(-1, labels[:, None])[:, 0], mean, variance.sqrt()]


# ---------------------------------------------------------------------------- answers


def texts_of(setting: Setting) -> list[str]:
    """Austen's prose, in texts of 100 to 800 tokens."""
    passages = audit_passages()
    sizes = np.random.default_rng(0).integers(*((1, 4) if setting.is_tiny else (4, 32)), 64)
    ends = np.cumsum(sizes) % (len(passages) - 40)
    count = 4 if setting.is_tiny else 64
    return [" ".join(passages[end : end + size]) for end, size in zip(ends, sizes, strict=True)][
        :count
    ]


def loaded(network: Any, budget: int = TOKENS, *, one_by_one: bool = False) -> CausalLM:
    """The network as raymia asks it; every vocabulary here has the tokens of the demo's."""
    folder = Path(raymia.__file__).parent / "demo" / ASSETS / "models" / "base"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return CausalLM(network, tokenizer, batch_tokens=budget, one_by_one=one_by_one)


def check_answers(name: str, setting: Setting) -> Found:
    """Two layers in bfloat16 against the same weights in float32, and texts alone and together."""
    config = text_config(name, is_tiny=setting.is_tiny, layers=DEPTH_CHECKED)
    texts = texts_of(setting)[:4]
    network = text_model(config, setting.device, torch.bfloat16)
    model = loaded(network)
    together = model.answer(texts, moments=True)
    alone = [model.answer([text], moments=True)[0] for text in texts]
    found: Found = {"after the output layer": str(model.head.after)}
    found["flash attention, with a mask"] = _flash(model, with_mask=True)
    found["flash attention, without"] = _flash(model, with_mask=False)
    wide = loaded(network.float()).answer(texts, moments=True)
    for column in ("log_prob", "mean_log_prob", "std_log_prob"):
        for label, others in (("float32", wide), ("alone", alone)):
            gaps = np.concatenate(
                [
                    np.abs(getattr(a, column) - getattr(b, column))
                    for a, b in zip(together, others, strict=True)
                ]
            )
            found[f"{column}, from {label}: mean"] = float(gaps.mean())
    return rounded(found)


@torch.inference_mode()
def _flash(model: CausalLM, *, with_mask: bool) -> str:
    """Whether the model's attention runs on the flash kernel and no other."""
    ids = torch.arange(32, device=model.device)[None].repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            model.model(input_ids=ids, attention_mask=mask if with_mask else None, use_cache=False)
    except RuntimeError as error:
        return f"no: {str(error)[:80]}"
    return "yes"


# ------------------------------------------------------------------------------ rates


def measure(name: str, kind: str, setting: Setting) -> Found:
    """Tokens per second of raymia, of the bare forward pass and of its body; head and memory."""
    device = setting.device
    config = text_config(name, is_tiny=setting.is_tiny)
    network = text_model(config, device, torch.bfloat16)
    if kind != "bf16":
        network = quantized(network, kind, device)
    model = loaded(network, 512 if setting.is_tiny else TOKENS, one_by_one=kind == "int8")
    held = torch.cuda.memory_allocated(device) / 2**30 if device.type == "cuda" else None
    texts = texts_of(setting)
    ids = [tokens[: model.max_tokens] for tokens in model.encode(texts)]
    bench = TextBench(
        model, network, None, texts, [], ids, model.batch_tokens, device.type == "cuda"
    )
    ways: dict[str, Callable[[TextBench], Timing]] = {
        "raymia": time_adapter,
        "raymia, texts padded": time_padded,
        "bare forward pass": time_limit,
        "bare body": lambda given: time_limit(_of_body(given)),
    }
    if find_spec("lm_eval") is not None and kind == "bf16":
        ways["lm-evaluation-harness"] = time_harness
    found: Found = {"tokens": bench.tokens, "GiB before": held, "texts in one row": model.packs}
    for way, run in ways.items():
        run(bench)
        found[f"{way}: tokens/s"] = max(run(bench).rate for _ in range(2))
        if way == "raymia":
            found["GiB, at most"] = peak_memory(device)
    found["raymia over the body"] = found["raymia: tokens/s"] / found["bare body: tokens/s"]
    tokens = min(bench.tokens, model.batch_tokens)
    hidden = torch.randn((tokens, _width(config)), device=device).to(torch.bfloat16)
    labels = torch.zeros(tokens, dtype=torch.int64, device=device)
    with torch.inference_mode():
        head = seconds_of(lambda: model.head.log_probs(hidden, labels, True), device)
    found[f"head: ms for {tokens} tokens"] = head * 1e3
    found["head: share of raymia's time"] = head / tokens * found["raymia: tokens/s"]
    card = _full_rate(device)
    if card is not None:
        per_token = 2 * _weights_used(network)
        found["MFU"] = found["raymia: tokens/s"] * per_token / card
    return rounded(found)


def _of_body(bench: TextBench) -> TextBench:
    return TextBench(
        bench.model, bench.network.base_model, None, bench.records, [], bench.ids,
        bench.batch_tokens, bench.on_gpu,
    )  # fmt: skip


def _width(config: Any) -> int:
    return int(config.get_text_config().hidden_size)


def _weights_used(network: Any) -> int:
    """Weights that a token is multiplied with: all but those of embeddings that are no output
    layer, counted as they are without quantization."""
    config = network.config.get_text_config()
    body = sum(
        module.in_features * module.out_features
        for module in network.base_model.modules()
        if hasattr(module, "in_features")
    )
    body += sum(
        module.weight.numel()
        for module in network.base_model.modules()
        if type(module).__name__ == "Conv1D"
    )
    return int(body + config.vocab_size * _width(config))


def _full_rate(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for card, rate in FULL_RATE.items() if card in name), None)


def measure_t5(setting: Setting) -> Found:
    """What a paraphraser's model writes in a second, and its logits against float32."""
    device = setting.device
    small = {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}
    large = {"d_model": 768, "d_ff": 3_072, "num_layers": 12, "num_heads": 12, "d_kv": 64}
    config = T5Config(
        vocab_size=32_128, decoder_start_token_id=0, **(small if setting.is_tiny else large)
    )
    torch.manual_seed(0)
    network = T5ForConditionalGeneration(config).to(device).eval()
    rows, length, new = (2, 16, 4) if setting.is_tiny else (128, 64, 32)
    ids = torch.randint(2, 32_000, (rows, length), device=device)
    with torch.inference_mode():
        right = network(input_ids=ids[:2], decoder_input_ids=ids[:2, :8]).logits
        network = network.to(torch.bfloat16)
        found = network(input_ids=ids[:2], decoder_input_ids=ids[:2, :8]).logits.float()
        settings = {"min_new_tokens": new, "max_new_tokens": new, "do_sample": False}
        seconds = seconds_of(lambda: network.generate(ids, **settings), device, times=1)
    gap = (found.log_softmax(-1) - right.log_softmax(-1)).abs().mean()
    return rounded(
        {"tokens written/s": rows * new / seconds, "log p from float32: mean": float(gap)}
    )


def beside_vllm(setting: Setting) -> Found:
    """Prompt log-probabilities of vLLM with random weights of the same shape."""
    if find_spec("vllm") is None:
        return {"vLLM": "not installed"}
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    folder = setting.folder / "vllm"
    text_config("Qwen3 8B", is_tiny=setting.is_tiny).save_pretrained(folder)
    served = LLM(
        str(folder), load_format="dummy", skip_tokenizer_init=True, max_model_len=4_096,
        gpu_memory_utilization=0.8, enforce_eager=True,
    )  # fmt: skip
    rows = np.random.default_rng(0).integers(0, 2_000, (64, 512)).tolist()
    prompts = [{"prompt_token_ids": row} for row in rows]
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    seconds = seconds_of(lambda: served.generate(prompts, asked, use_tqdm=False), setting.device, 1)
    return rounded({"tokens/s": 64 * 512 / seconds})
