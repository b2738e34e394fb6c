"""Does it pay to score what was trained? Conversations, several seeds, one table.

    python tools/chat_study.py --out study --chats chats.jsonl --base smollm2 --name plays

For each seed the conversations are split at random into members, non-members and prompts. The base
is fine-tuned on the members' answers alone: the target. It is audited by what was trained on, with
references made of answers to real prompts and to prompts of its own; by all tokens; and, flattened
to plain texts, with a reference of texts that continue their first tokens. An audit that is
finished is not run again; one that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raymia.demo.chat import TEMPLATE
from raymia.metrics.summary import AttackMetrics, Estimate
from raymia.modalities.texts.resolve_training import own_template
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

SIZES = {"members": 250, "non_members": 250, "prompts": 250}
LORA = LoraSpec(
    r=32, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
)
TARGET = FineTuneSpec(epochs=4, learning_rate=1e-3, max_tokens=192, lora=LORA)
REFERENCE = FineTuneSpec(epochs=2, learning_rate=1e-3, max_tokens=192, lora=LORA)
FPR = 0.1
WAYS = ("trained", "everything", "flattened")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--chats", required=True, help="JSONL or Parquet with a column messages")
    parser.add_argument("--base", type=Path, required=True, help="folder of a Llama-like model")
    parser.add_argument("--name", default="chats", help="what the table calls them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--bf16", action="store_true", help="train and answer in bfloat16")
    given = parser.parse_args()
    chats = read_records(TextRecordsSpec(members=[given.chats]), "chat").table["payload"]
    payloads: list[str] = chats.to_pylist()
    least = sum(SIZES.values())
    if len(payloads) < least:
        raise SystemExit(f"--chats: {len(payloads)} conversations, and the study needs {least}")
    results = {
        way: [run_seed(given.out / f"{given.name}-{seed}", payloads, given.base, seed, way,
                       given.bf16) for seed in given.seeds]
        for way in given.ways
    }  # fmt: skip
    table = summary(results)
    (given.out / f"{given.name}.md").write_text(table, encoding="utf-8")
    print(table)


def run_seed(
    folder: Path, payloads: Sequence[str], base: Path, seed: int, way: str, is_bf16: bool
) -> RunResult:
    """Split and train once for all ways, and audit in one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = resolve_causal_lm(ModelSpec(model=str(base)), "--base", on_gpu=False)
    template = own_template(checkpoint) or TEMPLATE
    (folder / "template.jinja").write_text(template, encoding="utf-8")
    training = Training("chat", "assistant", template=template, max_length=TARGET.max_tokens)
    parts = dealt(payloads, SIZES, seed, "chat study")
    for name, own in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(own) + "\n", encoding="utf-8")
        flat = [payload_of({"text": text}) for text in flattened(base, training, own)]
        (folder / f"{name}-flat.jsonl").write_text("\n".join(flat) + "\n", encoding="utf-8")
    if not (folder / "target" / "facts.json").exists():
        fine_tune(base, parts["members"], in_dtype(TARGET, is_bf16), folder / "target", seed=seed,
                  progress=lambda *_: None, measure_on=parts["non_members"],
                  training=training)  # fmt: skip
    file = folder / f"{way}.yaml"
    content = audit(base.resolve(), seed, way, is_bf16)
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


def audit(base: Path, seed: int, way: str, is_bf16: bool) -> dict[str, Any]:
    """The audit file of one way."""
    tune = in_dtype(REFERENCE, is_bf16).model_dump(exclude_defaults=True)
    dtype = "bfloat16" if is_bf16 else "auto"
    flat = "-flat" if way == "flattened" else ""
    made = {"kind": "self_prompt", "texts": SIZES["prompts"], "max_tokens": TARGET.max_tokens,
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


def summary(results: Mapping[str, Sequence[RunResult]]) -> str:
    """Mean AUC and TPR over the seeds, and the lowest and highest end of the seeds' intervals."""
    cells: dict[str, dict[str, str]] = {}
    for way, runs in results.items():
        measured = [m for run in runs for m in run.metrics if isinstance(m, AttackMetrics)]
        for attack in dict.fromkeys(m.attack for m in measured):
            own = [m for m in measured if m.attack == attack]
            rates = [estimate_at(m, FPR) for m in own]
            areas = over_seeds([m.auc for m in own], "{:.3f}")
            found = over_seeds([rate for rate in rates if rate is not None], "{:.0%}")
            cells.setdefault(attack, {})[way] = f"{areas} | {found}"
    names = "".join(f" {way}: AUC | TPR at {FPR:.0%} FPR |" for way in results)
    lines = [f"| attack |{names}", "|---|" + "---|---|" * len(results)]
    for attack, of_ways in cells.items():
        row = " | ".join(of_ways.get(way, " | ") for way in results)
        lines.append(f"| `{attack}` | {row} |")
    return "\n".join(lines) + "\n"


def over_seeds(estimates: Sequence[Estimate], form: str) -> str:
    """The mean, with the widest reach of the intervals."""
    if not estimates:
        return "not resolvable"
    mean, low, high = (
        form.format(number)
        for number in (
            statistics.mean(one.value for one in estimates),
            min(one.low for one in estimates),
            max(one.high for one in estimates),
        )
    )
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
