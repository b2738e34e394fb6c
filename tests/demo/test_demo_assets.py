"""The demo's embedded text and models: small, clean, and able to do what the demo asks of them."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import raymia

ASSETS = Path(raymia.__file__).parent / "demo" / "assets"
MODELS = ("base", "paraphraser")
SENTINEL = re.compile(r"<extra_id_(\d+)>")


@pytest.fixture(scope="module")
def austen() -> dict[str, list[str]]:
    return pq.read_table(ASSETS / "text" / "austen.parquet").to_pydict()


@pytest.fixture(scope="module")
def kjv() -> list[str]:
    texts: list[str] = pq.read_table(ASSETS / "text" / "kjv.parquet")["text"].to_pylist()
    return texts


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(name: str) -> tuple[Any, Any]:
    folder = ASSETS / "models" / name
    auto = AutoModelForCausalLM if name == "base" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def normalized(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.casefold().replace("'", "")))


def runs(text: str, length: int = 13) -> set[str]:
    words = normalized(text).split()
    return {" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


# --------------------------------------------------------------------------- text


def test_models_are_small_enough_to_ship() -> None:
    files = [path for name in MODELS for path in (ASSETS / "models" / name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000


def test_every_asset_says_where_it_comes_from() -> None:
    for folder in ("text", "models/base", "models/paraphraser"):
        assert (ASSETS / folder / "README.md").read_text(encoding="utf-8").strip()


def test_assets_name_no_machine_path() -> None:
    for path in ASSETS.rglob("*"):
        if path.suffix in {".json", ".md"}:
            assert not re.search(r"/(work|home|root|tmp|Users)/", path.read_text(encoding="utf-8"))


def test_each_austen_passage_has_a_novel_and_one_of_two_splits(
    austen: dict[str, list[str]],
) -> None:
    assert len(austen["text"]) >= 8_000
    assert len(set(austen["novel"])) == 6
    assert set(austen["split"]) == {"paraphraser", "audit"}
    assert austen["split"].count("paraphraser") / len(austen["split"]) == pytest.approx(
        0.4, abs=0.01
    )


def test_passages_are_cleaned_whole_sentences(austen: dict[str, list[str]], kjv: list[str]) -> None:
    for texts, longest in ((austen["text"], 60), (kjv, 70)):
        for text in texts:
            assert text == " ".join(text.split())
            assert 25 <= len(text.split()) <= longest
    assert all(re.match(r"^[\"'(]*[A-Z].*[.!?][\"')]*$", text) for text in austen["text"])


def test_no_passage_is_there_twice(austen: dict[str, list[str]], kjv: list[str]) -> None:
    for texts in (austen["text"], kjv):
        assert len({normalized(text) for text in texts}) == len(texts)


def test_no_audit_passage_shares_a_long_run_of_words_with_what_the_models_read(
    austen: dict[str, list[str]], kjv: list[str]
) -> None:
    rows = list(zip(austen["text"], austen["split"], strict=True))
    read = {run for text in kjv for run in runs(text)}
    read |= {run for text, split in rows if split == "paraphraser" for run in runs(text)}
    assert [text for text, split in rows if split == "audit" and runs(text) & read] == []


def test_no_audit_passage_shares_a_long_run_of_words_with_another(
    austen: dict[str, list[str]],
) -> None:
    seen: set[str] = set()
    for text in austen["text"]:
        assert seen.isdisjoint(runs(text))
        seen |= runs(text)


# ------------------------------------------------------------------------- models


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", MODELS)
def test_models_load_offline_in_float32_from_float16_safetensors(name: str) -> None:
    model, tokenizer = load(name)
    assert next(model.parameters()).dtype == torch.float32
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.config.vocab_size == len(tokenizer)
    assert [path.name for path in (ASSETS / "models" / name).glob("*.safetensors")] == [
        "model.safetensors"
    ]
    stored = (ASSETS / "models" / name / "model.safetensors").stat().st_size
    assert stored < 2.1 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_tokenizers_lose_nothing(name: str, austen: dict[str, list[str]]) -> None:
    _, tokenizer = load(name)
    for text in [*austen["text"][::500], "It cost £5 in the café."]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_base_adds_no_token_and_ends_and_pads_with_end_of_text() -> None:
    model, tokenizer = load("base")
    ids = tokenizer("And it came to pass")["input_ids"]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


@torch.no_grad()
def test_base_knows_the_bible_it_has_not_read_and_not_austen(
    austen: dict[str, list[str]], kjv: list[str]
) -> None:
    model, tokenizer = load("base")

    def perplexity(texts: list[str]) -> float:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return math.exp(model(**batch, labels=labels).loss.item())

    held_out = kjv[9::10][:32]  # every tenth passage was kept from training
    audit = [
        text
        for text, split in zip(austen["text"], austen["split"], strict=True)
        if split == "audit"
    ]
    assert perplexity(held_out) < 60  # 2,048 is a uniform guess
    assert perplexity(audit[:32]) > 3 * perplexity(held_out)


@torch.no_grad()
def test_paraphraser_fills_every_gap_of_most_passages(austen: dict[str, list[str]]) -> None:
    model, tokenizer = load("paraphraser")
    rows = zip(austen["text"], austen["split"], strict=True)
    texts = [text for text, split in rows if split == "paraphraser"][9::10][:20]
    rng = random.Random(0)
    masked, gaps = [], []
    for text in texts:
        words = text.split()
        starts = range(rng.randrange(3), len(words) - 2, 8)
        for number, start in reversed(list(enumerate(starts))):
            words[start : start + 2] = [f"<extra_id_{number}>"]
        masked.append(" ".join(words))
        gaps.append(len(starts))

    torch.manual_seed(0)
    batch = tokenizer(masked, padding=True, return_tensors="pt")
    output = model.generate(**batch, do_sample=True, top_k=50, max_new_tokens=64)
    written = tokenizer.batch_decode(output, skip_special_tokens=False)

    complete = 0
    for text, count in zip(written, gaps, strict=True):
        _, *parts = SENTINEL.split(text.replace("<pad>", "").replace("</s>", ""))
        fills = dict(zip(map(int, parts[::2]), (part.strip() for part in parts[1::2]), strict=True))
        complete += all(fills.get(number) for number in range(count))
    assert complete >= 15
