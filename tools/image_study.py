"""Where do image models leak? Sets x seeds x kinds of models, one cell at a time.

    python tools/image_study.py --out study --set fashion=train-images-idx3-ubyte.gz \
        --set clipart=openclipart/png --set mnist=mnist_5k.csv.gz

A cell is one set, one seed and one kind of model: a DDPM or a flow trained on its members, or a
LoRA of a flow that was trained on the next of the sets. It is audited at two points of the
training, each attack alone, with the base (the model of the next set) and with a reference made of
what the target generates. A fourth kind is a flow whose training saw the middle of the path more
often (`logit_normal`); it is asked along the path alone. A cell that is finished has a file in
--results and is not run again, in whatever --out; one that was killed goes on where it was. Every
cell runs on one thread, and says how many seconds of it it took. ``tools/image_tables.py`` makes
the page of the files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from image_sets import Images, read_images
from rich.console import Console

from raymia.metrics.summary import AttackMetrics, Estimate
from raymia.prepare.denoiser_files import fresh_pipeline, resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
from raymia.prepare.image_split import parquet
from raymia.prepare.train_denoiser import train_denoiser
from raymia.results.ranking import estimate_at
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import DiffusionTrainingSpec, with_engine
from raymia.spec.file import load_spec
from raymia.spec.methods import LoraMethod
from raymia.storage.files import Folder
from raymia.util.draws import generator

Kind = Literal["ddpm", "flow", "lora", "flow_middle"]
Objective = Literal["epsilon", "flow"]

KINDS: tuple[Kind, ...] = ("ddpm", "flow", "lora", "flow_middle")
CELLS = Path(__file__).parents[1] / "docs" / "studies" / "images"
SIDE = 12
CHANNELS = (16, 32, 32)
LAYERS = 1
PARTS = {"members": 150, "non_members": 1_000, "population": 200}
OF_BASE = 2_000
"""Images that a base is trained on, at most."""
TRAINING: dict[str, Any] = {"batch_size": 32, "learning_rate": 2e-3}
STEPS = 3_000
POINTS = (750, 3_000)
"""Steps after which a target is audited."""
BASE_STEPS, REFERENCE_STEPS, GENERATED = 1_000, 600, 400
LORA = LoraMethod(r=16, lora_alpha=16, target_modules=["conv1", "conv2"])
PATH = (0.05, 0.1, 0.2, 0.35, 0.6)
"""Shares of the path from image to noise that are asked about."""
STRENGTHS = (0.85,)
"""Of the crops that PFAMI looks at."""
ATTACKS = (
    "loss", "loss_per_byte", "peak_error", "quantile", "pfami", "secmi", "pia", "pian", "sima",
    "sima_mc", "gan_leaks", "monte_carlo", "over_representation", "logan",
)  # fmt: skip
FPR = 0.01


@dataclass(frozen=True)
class Cell:
    """One model of the study."""

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
    out : where models and evidence are kept; needed no longer when a cell is finished.
    results : a file for each finished cell.
    sets : where the images of each are.
    """

    out: Path
    results: Path
    sets: Mapping[str, str]
    seeds: Sequence[int]

    @property
    def cells(self) -> list[Cell]:
        """Seed by seed, so that each set has one model of each kind before any has two."""
        return [Cell(s, n, k) for n in self.seeds for s in self.sets for k in KINDS]


def design() -> dict[str, Any]:
    """What cells of one study have in common, as it stands in the file of each."""
    return {
        "side": SIDE, "channels": list(CHANNELS), "layers": LAYERS, "parts": PARTS,
        "steps": STEPS, **TRAINING,
        "base_steps": BASE_STEPS, "reference_steps": REFERENCE_STEPS, "generated": GENERATED,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--results", type=Path, default=CELLS, help="folder of finished cells")
    parser.add_argument("--set", action="append", required=True, help="NAME=IMAGES; two or more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cell", action="append", help="run these alone, as mnist-0-flow")
    given = parser.parse_args()
    sets = dict(one.split("=", 1) for one in given.set)
    study = Study(given.out, given.results, sets, given.seeds)
    if len(study.sets) < 2:
        raise SystemExit("--set: a base is of another set; give two or more")
    torch.set_num_threads(1)
    for cell in study.cells:
        if given.cell is None or cell.name in given.cell:
            run_cell(study, cell)


def run_cell(study: Study, cell: Cell) -> None:
    """Train, audit, and write the result; does nothing where there is one."""
    result = f"{cell.name}.json"
    if (study.results / result).is_file():
        refuse_another_design(study.results / result)
        return
    place = study.out / cell.name
    was_begun, begun = place.is_dir(), time.process_time()
    place.mkdir(parents=True, exist_ok=True)
    parts = split(images_of(study, cell.set), cell.seed)
    for name, images in parts.items():
        (place / f"{name}.parquet").write_bytes(parquet(images, None))
    base = base_of(study, cell)
    based = time.process_time()
    facts = train(study, cell, parts, base)
    trained = time.process_time()
    file = place / "audit.yaml"
    file.write_text(yaml.safe_dump(audit_of(cell, base), sort_keys=False), "utf-8")
    audited = run_audit(with_engine(load_spec(file), "local"), Console(stderr=True))
    seconds = {
        "base": based - begun, "training": trained - based, "audit": time.process_time() - trained
    }  # fmt: skip
    content = {
        "cell": {"set": cell.set, "seed": cell.seed, "kind": cell.kind},
        "design": design(),
        "seconds": {name: round(value) for name, value in seconds.items()},
        "in_one_go": not was_begun,
        "losses": {
            str(one["step"]): [one["train_loss"], one["held_out_loss"]]
            for one in facts["checkpoints"]
        },
        "passes": {c.attack: [c.of_target, c.of_others] for c in audited.costs},
        "attacks": found(audited),
    }
    study.results.mkdir(parents=True, exist_ok=True)
    Folder(str(study.results)).write(result, as_lines(content).encode())


def as_lines(content: Mapping[str, Any]) -> str:
    """JSON with a line for each key, and for each attack."""
    lines = [f' "{key}": {json.dumps(value)}' for key, value in content.items() if key != "attacks"]
    attacks = content["attacks"].items()
    rows = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in attacks)
    return "{\n" + ",\n".join([*lines, f' "attacks": {{\n{rows}\n }}']) + "\n}\n"


def refuse_another_design(file: Path) -> None:
    """Stop where a finished cell is of a study with other sizes."""
    theirs, ours = json.loads(file.read_text(encoding="utf-8"))["design"], design()
    if theirs != ours:
        keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
        raise SystemExit(
            f"{file}: the cell was run with other {', '.join(keys)} than this script has; move "
            "the files of that study away, or name another folder for --results"
        )


def images_of(study: Study, name: str) -> Images:
    """The images of a set, which are kept as they were read."""
    file = study.out / f"images-{name}.npy"
    if not file.is_file():
        study.out.mkdir(parents=True, exist_ok=True)
        images = read_images(study.sets[name], SIDE)
        with Folder(str(study.out)).writing(file.name) as out:
            np.save(out, images)
    kept: Images = np.load(file)
    return kept


def split(images: Images, seed: int) -> dict[str, Images]:
    """Members, non-members and a population, drawn at random."""
    if len(images) < sum(PARTS.values()):
        raise SystemExit(f"a set has {len(images)} distinct images, and {PARTS} are wanted")
    order = generator(seed, "image study").permutation(len(images))
    ends = np.cumsum([*PARTS.values()])
    return {
        name: images[order[end - size : end]]
        for (name, size), end in zip(PARTS.items(), ends, strict=True)
    }


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
    if not (place / "model_index.json").is_file():
        fresh_pipeline(
            place, (3, SIDE, SIDE), channels=CHANNELS, layers=LAYERS, attention=False,
            prediction_type=objective,
        )  # fmt: skip
    return place


def train(study: Study, cell: Cell, parts: Mapping[str, Images], base: Path) -> dict[str, Any]:
    """Train the cell's model on its members, and return its facts."""
    start, lora = base, None
    if cell.kind == "lora":
        lora = lora_settings(LORA, resolve_trainable(base, is_frozen=True))
    else:
        start = fresh(study, "epsilon" if cell.kind == "ddpm" else "flow")
    drawn: dict[str, Any] = {"timesteps": "logit_normal"} if cell.kind == "flow_middle" else {}
    return train_denoiser(
        parts["members"], start, DiffusionTrainingSpec(steps=STEPS, **TRAINING, **drawn),
        study.out / cell.name / "target", seed=cell.seed, progress=_quietly, lora=lora,
        measure_on=parts["non_members"], checkpoint_every=POINTS[0],
    )  # fmt: skip


def audit_of(cell: Cell, base: Path) -> dict[str, Any]:
    """The audit file of a cell: each attack alone and with each reference."""
    targets = []
    for step in POINTS:
        place = f"target/checkpoint-{step}"
        model = {"model": str(base), "adapter": place} if cell.kind == "lora" else {"model": place}
        targets.append({"name": str(step), **model})
    along = [
        {"attack": "loss", "name": f"loss_{100 * share:.0f}", "parameters": {"timestep": share}}
        for share in PATH
    ]
    shared = {
        "name": cell.name, "output": "report", "store": "store", "seed": cell.seed,
        "records": {"kind": "image", **{part: f"{part}.parquet" for part in PARTS}},
        "targets": targets,
    }  # fmt: skip
    if cell.kind == "flow_middle":
        probes = {"denoising": {"timesteps": list(PATH)}}
        return {**shared, "probes": probes, "attacks": ["loss", "peak_error", *along]}
    made = {"steps": REFERENCE_STEPS, **TRAINING}
    return {
        **shared,
        "references": {
            "base": {"model": str(base)},
            "self_generated": {
                "kind": "self_generated", "images": GENERATED, "sampling_steps": 25,
                "generation_batch": 128, "training": made},
        },
        "neighbors": {"kind": "crop", "strengths": list(STRENGTHS)},
        "probes": {
            "denoising": {"timesteps": list(PATH)},
            "inversion": {"timestep": 100, "step": 20},
            "averaged": {"timesteps": [0.1, 0.2], "pairs": 2},
        },
        "attacks": [*ATTACKS, *along],
    }  # fmt: skip


def found(result: RunResult) -> dict[str, dict[str, list[list[float]]]]:
    """By attack and point of the training, AUC and TPR at 1 % with their intervals."""
    attacks: dict[str, dict[str, list[list[float]]]] = {}
    for entry in result.metrics:
        if isinstance(entry, AttackMetrics):
            tpr = estimate_at(entry, FPR)
            assert tpr is not None
            attacks.setdefault(entry.attack, {})[entry.target] = [_three(entry.auc), _three(tpr)]
    return attacks


def _three(estimate: Estimate) -> list[float]:
    return [round(one, 4) for one in (estimate.value, estimate.low, estimate.high)]


def _quietly(*_: Any) -> None:
    """Training says nothing on the way."""


if __name__ == "__main__":
    main()
