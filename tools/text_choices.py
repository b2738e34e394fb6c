"""What two choices about texts are worth, on the demo's records: minutes on one core.

    python tools/text_choices.py

PAC swaps words. Released code joins the words of a copy by single blanks, and raymia leaves what is
between them: measured on passages with line breaks and tabs, beside copies in which nothing but the
space was changed. And a text that is longer than the model reads is read in windows, which may
begin as the texts of the training did, with the tokenizer's BOS, or not.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from raymia.attacks.swaps import Pac
from raymia.demo.text import audit_passages, copy_asset
from raymia.metrics.delong import placements
from raymia.models.causal.model import CausalLM
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.prepare.fine_tune import fine_tune
from raymia.questions.base import Item
from raymia.questions.variants import swap_words
from raymia.spec import FineTuneSpec, ModelSpec, PoolSpec
from raymia.util.draws import dealt

TUNING = FineTuneSpec(epochs=3, learning_rate=1e-3, max_tokens=256)
"""As the demo's target."""
COPIES, SHARE = 5, 0.3
COLUMNS = 50
TOGETHER, CONTEXT = 3, 96
"""Passages that are one long text, and tokens of a window."""
LOWEST = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=int, default=200, help="and as many non-members")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        for name, value in (*white_space(given.members, seed), *beginnings(given.members, seed)):
            rows.setdefault(name, []).append(value)
        print(f"seed {seed}: done", flush=True)
    for name, values in rows.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name:48} {np.mean(values):7.3f}   ({each})")
    return 0


def white_space(count: int, seed: int) -> Iterator[tuple[str, float]]:
    """AUCs of PAC by what is done to the space between words."""
    parts = dealt(audit_passages(), {"members": count, "others": count}, seed, "text choices")
    members, others = (list(map(broken, parts[name])) for name in ("members", "others"))
    model = tuned(members, others, seed)
    pac = Pac()

    def distances(change: Callable[[str, int], str]) -> list[float]:
        texts = [*members, *others]
        asked = [(text, [change(text, n) for n in range(1, COPIES + 1)]) for text in texts]
        flat = [one for text, copies in asked for one in (text, *copies)]
        answers = iter(model.answer(flat, moments=False))
        found = []
        for _, copies in asked:
            own, *changed = (next(answers).log_prob for _ in range(1 + len(copies)))
            found.append(pac._difference(own, changed))
        return found

    def swapped(text: str, number: int) -> str:
        return swap_words(Item(text, number, text), SHARE, seed) or text

    changes: dict[str, Callable[[str, int], str]] = {
        "words swapped, space left": swapped,
        "words swapped and joined by blanks": lambda t, n: " ".join(swapped(t, n).split()),
        "joined by blanks alone": lambda t, _: " ".join(t.split()),
    }
    for name, change in changes.items():
        yield f"AUC of pac: {name}", area(distances(change), count)


def broken(text: str) -> str:
    """A passage as a file of narrow columns has it, its first line set in by a tab."""
    return "\t" + "\n".join(textwrap.wrap(text, COLUMNS))


def beginnings(count: int, seed: int) -> Iterator[tuple[str, float]]:
    """AUCs of two attacks on texts in one piece, and in windows with and without a BOS."""
    half = count // 2
    passages = dealt(audit_passages(), {"all": 2 * half * TOGETHER}, seed, "long texts")["all"]
    texts = [" ".join(passages[n :: 2 * half]) for n in range(2 * half)]
    ways: dict[str, dict[str, Any]] = {
        "in one piece": {},
        "windows without a BOS": {"max_tokens": CONTEXT, "long_texts": "windows"},
        "windows with a BOS": {
            "max_tokens": CONTEXT, "long_texts": "windows", "window_bos": True,
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = tune(Path(scratch), texts[:half], texts[half:], seed, begins=True)
        for name, settings in ways.items():
            answers = load(folder, **settings).answer(texts, moments=False)
            log_prob = [answer.log_prob.astype(np.float64) for answer in answers]
            means = [float(own.mean()) for own in log_prob]
            lows = [float(np.sort(p)[: max(1, int(LOWEST * len(p)))].mean()) for p in log_prob]
            yield f"mean log p: {name}", float(np.mean(means))
            yield f"AUC of loss: {name}", area(means, half)
            yield f"AUC of min_k: {name}", area(lows, half)


def area(scores: Sequence[float], members: int) -> float:
    is_member = np.arange(len(scores)) < members
    return float(placements(np.asarray(scores), is_member).auc)


def tuned(members: Sequence[str], others: Sequence[str], seed: int) -> CausalLM:
    with tempfile.TemporaryDirectory() as scratch:
        return load(tune(Path(scratch), members, others, seed))


def tune(
    scratch: Path, members: Sequence[str], others: Sequence[str], seed: int, *, begins: bool = False
) -> Path:
    """Tune the demo's base, with a tokenizer that puts a BOS before each text where it begins."""
    base, out = scratch / "base", scratch / "target"
    copy_asset("models/base", base)
    if begins:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer._tokenizer.post_processor = TemplateProcessing(
            single="<start> $A", special_tokens=[("<start>", tokenizer.bos_token_id)]
        )
        tokenizer.save_pretrained(base)
    fine_tune(base, members, TUNING, out, seed=seed, progress=lambda *_: None, measure_on=others)
    return out


def load(folder: Path, **settings: Any) -> CausalLM:
    spec = ModelSpec(model=str(folder), **settings)
    found: CausalLM = resolve_causal_lm(spec, "model", on_gpu=False).loader(PoolSpec()).load()
    return found


if __name__ == "__main__":
    raise SystemExit(main())
