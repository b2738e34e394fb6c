"""Which attack finds members among images? Diffusion models along their training, and four VAEs.

    python tools/image_attacks.py --data fashion.parquet --shape 1 16 16 --fit stretch --out study

The images are split at random into members, non-members, a population, and images for an oracle.
Targets are a DDPM at three points of its training and one VAE of each objective. References are
made of what each target generates (self_generated), and trained on real images of the members'
distribution (oracle), which no outside attacker has. Everything is kept in --out: given again, the
command goes on where it stopped, and writes --page when all is done.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from rich.console import Console

from raymia.evidence.store import EvidenceStore
from raymia.metrics.roc import auc, roc_curve
from raymia.metrics.summary import AttackMetrics
from raymia.modalities.resolve import resolve_inputs
from raymia.models.autoencoders.vae.config import AutoencoderConfig, Objective
from raymia.plan.planning import plan_audit
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.image_split import parquet
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.prepare.train_denoiser import train_denoiser
from raymia.records.images import pixels_array, read_image_records
from raymia.results.ranking import estimate_at
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import AutoencoderTrainingSpec, DiffusionTrainingSpec, ImageRecordsSpec
from raymia.spec.file import load_spec
from raymia.util.draws import generator

Images = npt.NDArray[np.uint8]

PARTS = {"members": 1_000, "non_members": 1_000, "population": 500, "oracle": 2_000}
CHANNELS = (16, 32, 48)
STEPS, EVERY = 9_000, 3_000
TRAINING: dict[str, Any] = {"batch_size": 32, "learning_rate": 1e-3, "warmup": 200}
ORACLE = {**TRAINING, "steps": 2_000}
REFERENCE = {**TRAINING, "steps": 1_500}
OBJECTIVES: tuple[Objective, ...] = ("vae", "beta_vae", "wae_mmd", "rhvae")
VAE_TRAINING: dict[str, Any] = {"epochs": 100, "batch_size": 64, "learning_rate": 1e-3}
GREY_KINDS = ["crop", "rotation", "perspective", "downsampling", "jpeg", "blur", "brightness",
              "contrast"]  # fmt: skip
FPR = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder, table or tar of images")
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    parser.add_argument("--fit", default="exact", choices=("exact", "crop", "pad", "stretch"))
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    parser.add_argument("--judged", type=int, default=1_000, help="members scored, and others")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = split(given)
    train_diffusion(given.out, parts, tuple(given.shape), given.seed)
    audits = {}
    contents = files(given)
    for name, content in contents.items():
        objective = next((kind for kind in OBJECTIVES if kind == name), None)
        if objective is not None:
            train_autoencoders(given.out, parts, tuple(given.shape), given.seed, objective)
        audits[name] = run(given.out, name, content)
    page = "\n\n".join([*tables(audits), *budgets(given.out)]) + "\n"
    (given.out / "tables.md").write_text(page, encoding="utf-8")
    if given.page:
        start, end = "<!-- made by tools/image_attacks.py -->", "<!-- end -->"
        before, _, rest = given.page.read_text(encoding="utf-8").partition(start)
        after = rest.partition(end)[2]
        given.page.write_text(f"{before}{start}\n\n{page}\n{end}{after}", encoding="utf-8")
    print(page)


def split(given: argparse.Namespace) -> dict[str, Images]:
    """The parts, drawn at random, and written as audits read them."""
    shape = tuple(given.shape)
    spec = ImageRecordsSpec(kind="image", candidates=[given.data], fit=given.fit)
    images = pixels_array(read_image_records(spec, shape).table["payload"].to_pylist(), shape)
    if len(images) < sum(PARTS.values()):
        raise SystemExit(
            f"{given.data}: {len(images)} images, the study needs {sum(PARTS.values())}"
        )
    order = generator(given.seed, "image study").permutation(len(images))
    parts, start = {}, 0
    for name, size in PARTS.items():
        parts[name] = images[order[start : start + size]]
        (given.out / f"{name}.parquet").write_bytes(parquet(parts[name][: given.judged], None))
        start += size
    return parts


def train_diffusion(out: Path, parts: Mapping[str, Images], shape: Any, seed: int) -> None:
    """A diffusion model with three checkpoints, and its oracle."""
    fresh_pipeline(out / "fresh", shape, channels=CHANNELS, attention=False)
    for name, on, number, settings in (
        ("ddpm", "members", seed, {**TRAINING, "steps": STEPS}),
        ("ddpm-oracle", "oracle", seed + 1, ORACLE),
    ):
        report(name, train_denoiser(
            parts[on], out / "fresh", DiffusionTrainingSpec(**settings), out / name, seed=number,
            progress=lambda *_: None, measure_on=parts["non_members"],
            checkpoint_every=EVERY if name == "ddpm" else None,
        ))  # fmt: skip


def train_autoencoders(
    out: Path, parts: Mapping[str, Images], shape: Any, seed: int, objective: Objective
) -> None:
    """An autoencoder, and its oracle."""
    config = AutoencoderConfig(
        objective=objective, image_shape=shape, latent=32, channels=(32, 64, 128),
        beta=2.0 if objective == "beta_vae" else 1.0,
    )  # fmt: skip
    for name, on, number in (
        (objective, "members", seed),
        (f"{objective}-oracle", "oracle", seed + 1),
    ):
        report(name, train_autoencoder(
            parts[on], config, AutoencoderTrainingSpec(**VAE_TRAINING), out / name, seed=number,
            progress=lambda *_: None, measure_on=parts["non_members"],
        ))  # fmt: skip


def report(name: str, facts: Mapping[str, Any]) -> None:
    losses = facts.get("checkpoints", [facts])
    found = ", ".join(f"{c['train_loss']:.4f} / {c['held_out_loss']:.4f}" for c in losses)
    print(f"{name}: training / held-out loss {found}; {facts['seconds']:.0f} s", flush=True)


def files(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The audit files, by name."""
    records = {"kind": "image", **{key: f"{key}.parquet" for key in list(PARTS)[:3]}}
    common = {"store": "store", "seed": given.seed, "records": records}
    checkpoints = [
        {"name": f"step-{step}", "model": f"ddpm/checkpoint-{step}"}
        for step in range(EVERY, STEPS + 1, EVERY)
    ]
    made = {"kind": "self_generated", "images": 1_000, "training": REFERENCE}
    diffusion = {
        **common,
        "targets": checkpoints,
        "references": {"self_generated": made, "oracle": {"model": "ddpm-oracle"}},
        "neighbors": {"kind": "crop"},
    }
    variants = [
        {
            "attack": "pfami",
            "name": f"pfami_{form}_{strengths}",
            "parameters": {"form": form, "strengths": strengths},
        }
        for form in ("ratio", "difference")
        for strengths in ("all", "one")
    ]
    last = {**diffusion, "targets": checkpoints[-1:]}
    last.pop("references")
    one_timestep = [
        {"attack": "loss", "name": f"loss_t{t}", "parameters": {"timestep": t}}
        for t in (50, 100, 200, 300, 400, 500)
    ]
    filtered = [
        {"attack": name, "name": f"{name}_low_pass", "parameters": {"low_pass": True}}
        for name in ("loss", "pfami", "pia", "sima", "secmi")
    ]
    few = {"denoising": {"timesteps": [100, 200, 300, 400]}}
    audits = {
        "diffusion": diffusion,
        "forms": {
            **last,
            "attacks": [*variants, *one_timestep, *filtered, "loss", "pia", "sima", "secmi"],
        },
        "independent": {
            **last,
            "attacks": variants,
            "probes": {"denoising": {"noise": "independent"}},
        },
        "perturbations": {
            **last,
            "neighbors": {"kind": "auto", "among": GREY_KINDS},
            "probes": few,
            "attacks": [
                *(
                    {"attack": "pfami", "name": kind, "parameters": {"perturbation": kind}}
                    for kind in GREY_KINDS
                ),
                {"attack": "pfami", "name": "auto"},
            ],
        },
    }
    for objective in OBJECTIVES:
        audits[objective] = {
            **common,
            "targets": [{"name": objective, "model": objective}],
            "references": {
                "self_generated": {**made, "training": {"steps": 1_000}},
                "oracle": {"model": f"{objective}-oracle"},
            },
            "neighbors": {"kind": "crop"},
        }
    return audits


def run(out: Path, name: str, content: dict[str, Any]) -> RunResult:
    """One of the audits, with a report of its own on the common store."""
    file = out / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "output": f"report-{name}", **content}), "utf-8")
    return run_audit(load_spec(file), Console(stderr=True))


def tables(audits: Mapping[str, RunResult]) -> Iterable[str]:
    """One table of AUC and TPR for the checkpoints, the studies on the last, and the VAEs."""
    yield "### Along the training of the diffusion model\n\n" + table([audits["diffusion"]])
    yield "### Forms, timesteps, and FreMIA's low-pass, last checkpoint\n\n" + table(
        [audits["forms"]]
    )
    yield "### Independent noise in place of shared\n\n" + table([audits["independent"]])
    yield "### Perturbations, four timesteps, ten strengths each\n\n" + table(
        [audits["perturbations"]]
    )
    yield "### Autoencoders\n\n" + table([audits[name] for name in OBJECTIVES])


def table(results: Sequence[RunResult]) -> str:
    """AUC with its interval, and TPR at 1 % FPR with its, of each attack and target."""
    cells: dict[str, dict[str, tuple[float, str]]] = {}
    targets: list[str] = []
    for entry in (m for result in results for m in result.metrics):
        if entry.target not in targets:
            targets.append(entry.target)
        if isinstance(entry, AttackMetrics):
            cells.setdefault(entry.attack, {})[entry.target] = cell(entry)
    lines = [f"| attack | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    order = sorted(cells, key=lambda a: -statistics.mean(v for v, _ in cells[a].values()))
    for attack in order:
        row = [cells[attack].get(target, (0.0, "-"))[1] for target in targets]
        lines.append(f"| `{attack}` | {' | '.join(row)} |")
    return "\n".join(lines)


def cell(entry: AttackMetrics) -> tuple[float, str]:
    tpr, area = estimate_at(entry, FPR), entry.auc
    assert tpr is not None
    return tpr.value, (
        f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f}) / "
        f"{100 * tpr.value:.1f} ({100 * tpr.low:.1f} to {100 * tpr.high:.1f}) %"
    )


def budgets(out: Path) -> Iterable[str]:
    """AUC of PFAMI against passes per image, from the stored matrix: no model is asked."""
    spec = load_spec(out / "diffusion.yaml")
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    plan = plan_audit(inputs, store)[-1]
    pfami = next(a for a in inputs.attacks if a.label == "pfami")
    target = inputs.modality.evidence_on(inputs, store, plan).given_to(pfami, {}).target
    own, around = target.terms.loss, target.neighbors["crop"].loss
    labels = np.array(inputs.records.table["is_member"].to_pylist(), bool)
    lines = ["| timesteps | strengths | passes | AUC |", "|---|---|---|---|"]
    for times in (1, 2, 5, 10):
        for strengths in (1, 2, 5, 10):
            t = np.linspace(0, own.shape[1] - 1, times).round().astype(int)
            s = np.linspace(0, around.shape[1] - 1, strengths + 2).round().astype(int)[1:-1]
            s = np.arange(10) if strengths == 10 else s
            change = (around[:, s][:, :, t] - own[:, None, t]) / own[:, None, t]
            value = auc(roc_curve(change.mean(axis=(1, 2, 3)), labels))
            lines.append(f"| {times} | {strengths} | {times * (1 + strengths)} | {value:.3f} |")
    yield "### Passes per image against AUC, PFAMI with crops, last checkpoint\n\n" + "\n".join(
        lines
    )


if __name__ == "__main__":
    main()
