"""Which statistic finds members with which reference? Small targets, several seeds, one table.

    python tools/reference_study.py --out study                          # Austen, seeds 0 1 2
    python tools/reference_study.py --out study --texts reviews.csv --name reviews
    python tools/reference_study.py --out study --texts reviews.csv --name smollm2 --base smollm2

For each seed the texts are split at random into members, non-members, prompts, a population, and
texts for an oracle. A base, the demo's or a pretrained Llama-like model, is fine-tuned on the
members: the target. The references are the base, the base fine-tuned on what the target writes
(self_prompt), and the base fine-tuned on real texts of the members' distribution (oracle), which no
outside attacker has. All attacks run. A folder of a seed that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from raymia.demo.text import audit_passages, copy_models, write_jsonl
from raymia.prepare.fine_tune import fine_tune
from raymia.records.texts import texts_among
from raymia.results.ranking import estimate_at
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import FineTuneSpec, LoraSpec
from raymia.spec.file import load_spec
from raymia.util.draws import dealt

MIN_WORDS = 15


@dataclass(frozen=True)
class Scale:
    """What a base of some size is given."""

    sizes: dict[str, int]
    target: FineTuneSpec
    reference: FineTuneSpec
    neighbors: dict[str, object]


LORA = LoraSpec(
    r=32, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
)
SMALL = Scale(
    {"members": 400, "non_members": 400, "prompts": 1_600, "population": 300, "oracle": 1_600},
    FineTuneSpec(epochs=3, learning_rate=1e-3),
    FineTuneSpec(epochs=2, learning_rate=5e-4),
    {"preset": "repo", "model": "paraphraser"},
)
"""For the demo's base, of one million parameters."""
PRETRAINED = Scale(
    {"members": 250, "non_members": 250, "prompts": 500, "population": 150, "oracle": 500},
    FineTuneSpec(epochs=4, learning_rate=1e-3, lora=LORA),
    FineTuneSpec(epochs=2, learning_rate=1e-3, lora=LORA),
    {"kind": "substitute", "count": 2},
)
"""For a pretrained base, on a machine without a GPU."""
FPR = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--texts", help="JSONL, CSV or Parquet file; default: Austen")
    parser.add_argument("--column", default="text", help="name of the text column")
    parser.add_argument("--name", default="austen", help="what the table calls these texts")
    parser.add_argument(
        "--base", type=Path, help="folder of a pretrained Llama-like model; default: the demo's"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if given.base is not None and not (given.base / "config.json").is_file():
        raise SystemExit(
            f"--base: {given.base} should be the folder of a transformers model, and has no "
            "config.json"
        )
    scale = SMALL if given.base is None else PRETRAINED
    texts = audit_passages() if given.texts is None else read_usable(given.texts, given.column)
    least = sum(scale.sizes.values())
    if len(texts) < least:
        raise SystemExit(
            f"{given.texts}: {len(texts)} different texts of {MIN_WORDS} words or more, and the "
            f"study needs {least}"
        )
    results = [
        run_seed(given.out / f"{given.name}-{seed}", texts, scale, given.base, seed)
        for seed in given.seeds
    ]
    table = summary(results, given.seeds)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{given.name}.md").write_text(table, encoding="utf-8")
    print(table)


def read_usable(path: str, column: str) -> list[str]:
    """Texts of some length, each once."""
    long = (text for text in texts_among(path, column) if len(text.split()) >= MIN_WORDS)
    return list(dict.fromkeys(long))


def run_seed(
    folder: Path, texts: list[str], scale: Scale, pretrained: Path | None, seed: int
) -> RunResult:
    """Split, train, audit."""
    file = folder / "audit.yaml"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = dealt(texts, scale.sizes, seed, "reference study")
        for name, own in parts.items():
            write_jsonl(folder / f"{name}.jsonl", own)
        if pretrained is None:
            copy_models(folder)
        base = (pretrained or folder / "base").resolve()
        for name, on, spec in (
            ("target", "members", scale.target),
            ("oracle", "oracle", scale.reference),
        ):
            fine_tune(
                base,
                parts[on],
                spec,
                folder / name,
                seed=seed,
                progress=lambda *_: None,
                measure_on=parts["non_members"],
            )
        file.write_text(yaml.safe_dump(audit(scale, base, seed), sort_keys=False), encoding="utf-8")
    return run_audit(load_spec(file), Console(stderr=True))


def audit(scale: Scale, base: Path, seed: int) -> dict[str, object]:
    """The audit file of one seed."""

    def tuned(name: str) -> dict[str, str]:
        return (
            {"model": name} if scale.target.lora is None else {"model": str(base), "adapter": name}
        )

    return {
        "name": "reference-study",
        "output": "report",
        "store": "store",
        "seed": seed,
        "records": {
            "members": "members.jsonl",
            "non_members": "non_members.jsonl",
            "population": "population.jsonl",
        },
        "targets": [{"name": "target", **tuned("target")}],
        "references": {
            "base": {"model": str(base)},
            "self_prompt": {
                "kind": "self_prompt",
                "prompts": "prompts.jsonl",
                "texts": scale.sizes["prompts"],
                "prompt_tokens": 8,
                "max_tokens": 72,
                "generation_batch": 128,
                "fine_tune": scale.reference.model_dump(exclude_defaults=True),
            },
            "oracle": tuned("oracle"),
        },
        "neighbors": scale.neighbors,
    }


def summary(results: list[RunResult], seeds: list[int]) -> str:
    """AUC / TPR in percent of each attack and seed, and the means; the best first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        for entry in result.metrics:
            if entry.kind == "measured":
                tpr = estimate_at(entry, FPR)
                assert tpr is not None
                found.setdefault(entry.attack, []).append((entry.auc.value, 100 * tpr.value))
    means = {a: tuple(statistics.mean(x) for x in zip(*v, strict=True)) for a, v in found.items()}
    head = ["attack", *(f"seed {seed}" for seed in seeds), "mean"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for attack in sorted(found, key=lambda a: -means[a][1]):
        cells = [f"{auc:.3f} / {tpr:.1f}" for auc, tpr in [*found[attack], means[attack]]]
        lines.append(f"| `{attack}` | {' | '.join(cells)} |")
    facts = [
        {card.name: card.facts.get("held_out_loss") for card in result.references if card.facts}
        for result in results
    ]
    return "\n".join(lines) + f"\n\nHeld-out losses of the made references: {json.dumps(facts)}\n"


if __name__ == "__main__":
    main()
