"""Measure what LiRA tells with few shadows, with a prior for the variance and without.

python tools/few_shadows.py                    # prints the table of docs/statistics.md
python tools/few_shadows.py --trained FOLDER   # that of models that are trained; goes on after a
                                               # kill
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.metrics import roc_auc_score, roc_curve

from raymia.attacks.likelihood_ratio import AmongShadows, Online
from raymia.attacks.student_ratio import StudentOnline

AUDITS, RECORDS, FPR = 20, 2_000, 0.01
SHADOWS = (4, 8, 16)
MODELS, PASSAGES = 10, 400
TRAINER = {"learning_rate": 5e-4, "num_train_epochs": 4, "per_device_train_batch_size": 16}
"""Of models that are trained."""
TOKENS = (2, 4, 8, None)
"""Of each record, that are scored of models that are trained: the first so many, or all."""
VARIANCES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "inverse chi-square": lambda draws: 3 / draws.chisquare(3, RECORDS),
    "log-normal": lambda draws: np.exp(draws.normal(0, 1, RECORDS)),
    "one for all": lambda _: np.ones(RECORDS),
}
Scores = np.ndarray


def audit(count: int, kind: str, seed: int) -> tuple[Scores, Any]:
    """Membership, and evidence in which a model's answers are its statistics."""
    draws = np.random.default_rng(seed)
    variance = VARIANCES[kind](draws)
    mean, gap = draws.normal(-2, 1, RECORDS), np.exp(draws.normal(0, 0.5, RECORDS))
    is_in = np.argsort(draws.random((count, RECORDS)), axis=0) < count // 2
    is_member = draws.random(RECORDS) < 0.5
    noise = np.sqrt(variance) * draws.normal(size=(count + 1, RECORDS))
    phi = mean + gap * np.vstack([is_member, is_in]) + noise
    pairs = zip(phi[1:], is_in, strict=True)
    shadows = [SimpleNamespace(model=one, is_in=who) for one, who in pairs]
    return is_member, SimpleNamespace(target=phi[0], shadows=shadows)


@dataclass(frozen=True)
class Lira(Online):
    """On statistics that are there already."""

    def statistic(self, model: Scores) -> Scores:
        return model


@dataclass(frozen=True)
class LiraT(StudentOnline):
    """On statistics that are there already."""

    def statistic(self, model: Scores) -> Scores:
        return model


METHODS: dict[str, AmongShadows] = {
    "`lira`": Lira(),
    "`lira`, own variances": Lira(fixed_variance=False),
    "`lira_t`": LiraT(),
}


def told(is_member: Scores, scores: Scores) -> tuple[float, float]:
    """AUC, and TPR at the false-positive rate."""
    fpr, tpr, _ = roc_curve(is_member, scores)
    return float(roc_auc_score(is_member, scores)), float(tpr[fpr <= FPR].max())


def table() -> str:
    """All rows, as markdown."""
    lines = [f"| variances | shadows | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    for kind in VARIANCES:
        for count in SHADOWS:
            audits = [audit(count, kind, seed) for seed in range(AUDITS)]
            cells = [
                _cell([told(who, attack.score(given)) for who, given in audits])
                for attack in METHODS.values()
            ]
            lines.append(f"| {kind} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def trained(folder: Path) -> tuple[list[Scores], Any]:
    """Statistics of models that are trained, [models, records] for each of ``TOKENS``, and what
    each was trained on.

    They are the demo's base, fine-tuned on random halves of passages of Austen.
    """
    from raymia.demo.text import audit_passages, copy_models, write_jsonl
    from raymia.modalities.resolve import resolve_inputs
    from raymia.models.causal.family import load_causal_lm
    from raymia.models.causal.resolver import CausalCheckpoint
    from raymia.run.shadows import run_shadows
    from raymia.run.train import run_training
    from raymia.spec.file import load_spec
    from raymia.spec.target_training import TargetTrainingSpec
    from raymia.util.draws import dealt

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        copy_models(folder)
    texts = folder / "texts.jsonl"
    write_jsonl(texts, dealt(audit_passages(), {"all": PASSAGES}, "records")["all"])
    spec = TargetTrainingSpec.model_validate(
        {
            "output": str(folder / "trained"),
            "base": str(folder / "base"),
            "records": {"files": str(texts)},
            "training": {"max_length": 64},
            "method": "full",
            "trainer": {**TRAINER, "save_strategy": "no"},
            "shadows": {"count": MODELS},
        }
    )
    run_training(spec)
    run_shadows(spec, Console(quiet=True))
    inputs = resolve_inputs(load_spec(folder / "trained" / "manifest.json"))
    payloads = inputs.records.table["payload"].to_pylist()
    phi, is_in = [], []
    for name, members in sorted(inputs.shadow_members.items()):
        shadow = inputs.references[name]
        assert isinstance(shadow, CausalCheckpoint), "it is a language model"
        answers = load_causal_lm(shadow, batch_tokens=8_192).answer(payloads, moments=False)
        means = [[one.log_prob[:count].mean(dtype=np.float64) for one in answers]
                 for count in TOKENS]  # fmt: skip
        phi.append(np.array(means) - np.log(-np.expm1(means)))  # the logit of exp(mean)
        is_in.append([record in members for record in inputs.records.ids])
    return list(np.array(phi).swapaxes(0, 1)), np.array(is_in)


def trained_table(statistics: Sequence[Scores], is_in: Any) -> str:
    """Each model in turn as the target, beside some of the others, in pairs of a half and the other
    half."""
    lines = [f"| tokens | shadows | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    for (tokens, phi), count in product(zip(TOKENS, statistics, strict=True), (4, MODELS - 2)):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
        for target in range(MODELS):
            others = [one for one in range(MODELS) if one // 2 != target // 2][:count]
            shadows = [SimpleNamespace(model=phi[one], is_in=is_in[one]) for one in others]
            given = SimpleNamespace(target=phi[target], shadows=shadows)
            for name, attack in METHODS.items():
                found[name].append(told(is_in[target], attack.score(given)))
        cells = " | ".join(map(_cell, found.values()))
        lines.append(f"| {'all' if tokens is None else f'first {tokens}'} | {count} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[tuple[float, float]]) -> str:
    auc, rate = np.mean(found, axis=0)
    return f"{auc:.3f}, {rate:.1%}".replace("%", " %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trained", type=Path, help="folder of models that are trained")
    given = parser.parse_args().trained
    print(table() if given is None else trained_table(*trained(given)), end="")
