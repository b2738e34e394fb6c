"""Does it pay to score what was trained? Conversations, several seeds, one table.

    python tools/chat_study.py --out study --chats chats.jsonl --base smollm2 --name plays

For each seed the conversations are split at random into members, non-members and prompts. The base
is fine-tuned on the members' answers alone: the target. It is audited by what was trained on, with
references made of answers to real prompts and to prompts of its own; by all tokens; and, flattened
to plain texts, with a reference of texts that continue their first tokens.

What one audit comes to is a cell, a small file of its own in --cells; the table is made of them. A
cell that is there is not run again; an audit that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raymia.demo.chat import TEMPLATE
from raymia.metrics.summary import AttackMetrics, Estimate, Result
from raymia.modalities.texts.templates import own_template
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.causal.training import Training
from raymia.prepare.fine_tune import fine_tune
from raymia.records.conversations import payload_of
from raymia.records.structured import read_records
from raymia.results.ranking import estimate_at
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import FineTuneSpec, LoraSpec, ModelSpec, TextRecordsSpec
from raymia.spec.file import load_spec
from raymia.util.draws import dealt

PARTS = ("members", "non_members", "prompts")
LORA = LoraSpec(
    r=32, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
)
TARGET = FineTuneSpec(epochs=4, learning_rate=1e-3, max_tokens=192, lora=LORA)
REFERENCE = FineTuneSpec(epochs=2, learning_rate=1e-3, max_tokens=192, lora=LORA)
FPR = 0.1
HEADS = {"trained": "what was trained", "everything": "all tokens", "flattened": "flattened"}
WAYS = (*HEADS,)


class Found(Result):
    """What an attack achieved in one audit."""

    auc: Estimate
    tpr: Estimate | None


class Cell(Result):
    """One way of one seed: what each attack achieved."""

    name: str
    seed: int
    way: str
    members: int
    bf16: bool
    attacks: dict[str, Found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--chats", required=True, help="JSONL or Parquet with a column messages")
    parser.add_argument("--base", type=Path, required=True, help="folder of a Llama-like model")
    parser.add_argument("--name", default="chats", help="what the cells call them")
    parser.add_argument("--cells", type=Path, help="folder of the cells (default: in --out)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--size", type=int, default=250, help="members; as many non-members, prompts"
    )
    parser.add_argument("--bf16", action="store_true", help="train and answer in bfloat16")
    given = parser.parse_args()
    chats = read_records(TextRecordsSpec(members=[given.chats]), "chat").table["payload"]
    payloads: list[str] = chats.to_pylist()
    least = given.size * len(PARTS)
    if len(payloads) < least:
        raise SystemExit(f"--chats: {len(payloads)} conversations, and the study needs {least}")
    cells = given.cells or given.out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for way in given.ways:
            file = cells / f"{given.name}-{seed}-{way}.json"
            if not file.exists():
                folder = given.out / f"{given.name}-{seed}"
                sizes = dict.fromkeys(PARTS, given.size)
                run = run_seed(folder, payloads, sizes, given.base, seed, way, given.bf16)
                cell = Cell(name=given.name, seed=seed, way=way, members=given.size,
                            bf16=given.bf16, attacks=found(run))  # fmt: skip
                file.write_text(cell.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(summary(read_cells(cells, given.name)))


def found(run: RunResult) -> dict[str, Found]:
    measured = [m for m in run.metrics if isinstance(m, AttackMetrics)]
    return {m.attack: Found(auc=m.auc, tpr=estimate_at(m, FPR)) for m in measured}


def read_cells(folder: Path, name: str) -> list[Cell]:
    """The cells of a name, by seed and way."""
    files = sorted(folder.glob(f"{name}-*.json"))
    return [Cell.model_validate_json(file.read_text(encoding="utf-8")) for file in files]


def run_seed(
    folder: Path,
    payloads: Sequence[str],
    sizes: dict[str, int],
    base: Path,
    seed: int,
    way: str,
    is_bf16: bool,
) -> RunResult:
    """Split and train once for all ways, and audit in one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = resolve_causal_lm(ModelSpec(model=str(base)), "--base", on_gpu=False)
    template = own_template(checkpoint) or TEMPLATE
    (folder / "template.jinja").write_text(template, encoding="utf-8")
    training = Training("chat", "assistant", template=template, max_length=TARGET.max_tokens)
    parts = dealt(payloads, sizes, seed, "chat study")
    for name, own in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(own) + "\n", encoding="utf-8")
        flat = [payload_of({"text": text}) for text in flattened(base, training, own)]
        (folder / f"{name}-flat.jsonl").write_text("\n".join(flat) + "\n", encoding="utf-8")
    if not (folder / "target" / "facts.json").exists():
        fine_tune(base, parts["members"], in_dtype(TARGET, is_bf16), folder / "target", seed=seed,
                  progress=lambda *_: None, measure_on=parts["non_members"],
                  training=training)  # fmt: skip
    file = folder / f"{way}.yaml"
    content = audit(base.resolve(), sizes["prompts"], seed, way, is_bf16)
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    finished = folder / way / "metrics.json"
    if finished.exists():
        found = RunResult.model_validate_json(finished.read_text(encoding="utf-8"))
        if found.complete:
            return found
    return run_audit(load_spec(file), Console())


def in_dtype(spec: FineTuneSpec, is_bf16: bool) -> FineTuneSpec:
    return spec.model_copy(update={"bf16": True}) if is_bf16 else spec


def flattened(base: Path, training: Training, payloads: Sequence[str]) -> list[str]:
    """Conversations as the template writes them, as plain texts."""
    from transformers import AutoTokenizer

    reader = TrainedReader(AutoTokenizer.from_pretrained(base), training)
    return [reader.text_of(json.loads(payload)["messages"]) for payload in payloads]


def audit(base: Path, texts: int, seed: int, way: str, is_bf16: bool) -> dict[str, Any]:
    """The audit file of one way."""
    tune = in_dtype(REFERENCE, is_bf16).model_dump(exclude_defaults=True)
    dtype = "bfloat16" if is_bf16 else "auto"
    flat = "-flat" if way == "flattened" else ""
    made = {"kind": "self_prompt", "texts": texts, "max_tokens": TARGET.max_tokens,
            "fine_tune": tune}  # fmt: skip
    references: dict[str, Any] = {
        "base": {"model": str(base), "dtype": dtype},
        "self_prompt": {**made, "prompts": f"prompts{flat}.jsonl"},
    }
    if way == "trained":
        references["from_nothing"] = {**made, "prompts": "none"}
    if way == "flattened":
        references["self_prompt"]["prompt_tokens"] = 32
    sections: dict[str, Any] = {
        "name": f"chat-study-{way}",
        "output": way,
        "store": "store",
        "seed": seed,
        "records": {"members": f"members{flat}.jsonl", "non_members": f"non_members{flat}.jsonl"},
        "targets": [{"name": "target", "model": str(base), "adapter": "target", "dtype": dtype}],
        "references": references,
        "neighbors": {"kind": "substitute", "count": 2},
        "attacks": ["loss", "difference", "ez", "wbc", "spv"],
        "resources": {"engine": "local"},
    }
    if way != "flattened":
        loss_on = "assistant" if way == "trained" else "all"
        sections["training"] = {"template": "template.jinja", "loss_on": loss_on,
                                "max_length": TARGET.max_tokens}  # fmt: skip
    return sections


def summary(cells: Sequence[Cell]) -> str:
    """Mean AUC and TPR over the seeds, and the lowest and highest end of the seeds' intervals."""
    of_ways = {way: [cell for cell in cells if cell.way == way] for way in WAYS}
    of_ways = {way: own for way, own in of_ways.items() if own}
    heads = "".join(
        f" {HEADS[way]}, {seeds_of(own)}: AUC | TPR at {100 * FPR:.0f} % FPR |"
        for way, own in of_ways.items()
    )
    lines = [f"| attack |{heads}", "|---|" + "---|---|" * len(of_ways)]
    for attack in dict.fromkeys(attack for own in of_ways.values() for attack in own[0].attacks):
        row = [f"`{attack}`"]
        for own in of_ways.values():
            measured = [cell.attacks[attack] for cell in own if attack in cell.attacks]
            row.append(over_seeds([one.auc for one in measured], "{:.3f} [{:.3f}, {:.3f}]"))
            rates = [one.tpr for one in measured if one.tpr is not None]
            row.append(over_seeds(rates, "{:.0f} % [{:.0f}, {:.0f}]", 100))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def seeds_of(cells: Sequence[Cell]) -> str:
    *most, last = (str(cell.seed) for cell in cells)
    return f"seeds {', '.join(most)} and {last}" if most else f"seed {last}"


def over_seeds(estimates: Sequence[Estimate], form: str, times: float = 1) -> str:
    """The mean, with the lowest and the highest end of the intervals, as `form` writes the three.

    Parameters
    ----------
    times : what each is multiplied by.
    """
    if not estimates:
        return ""
    mean = statistics.mean(one.value for one in estimates)
    ends = min(one.low for one in estimates), max(one.high for one in estimates)
    return form.format(*(times * number for number in (mean, *ends)))


if __name__ == "__main__":
    main()
