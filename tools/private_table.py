"""What does privacy cost, and does it hold? Small models trained at several budgets, one table.

    python tools/private_table.py --out private                      # the table of docs/training.md
    python tools/private_table.py --out private --models vae --epsilons 1 inf

Each model is trained on members by DP-SGD, and without it, by the same steps; what opacus spends is
reckoned step by step, and an audit by one attack, named beforehand, bounds epsilon from below. The
training without privacy is audited as if it claimed an epsilon of 1 and had forgotten the noise.
A cell that is finished is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raymia.demo.images import SHAPE, digits
from raymia.demo.text import audit_passages, copy_models, write_jsonl
from raymia.metrics.summary import AttackMetrics
from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.image_split import split_and_write
from raymia.prepare.private import Privacy, plan_privacy
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.prepare.train_denoiser import train_denoiser
from raymia.run.audit import run_audit
from raymia.run.train import run_training
from raymia.spec import AutoencoderTrainingSpec, DiffusionTrainingSpec
from raymia.spec.file import load_spec
from raymia.spec.target_training import DpSpec, TargetTrainingSpec
from raymia.util.draws import dealt

RECORDS, BATCH, DELTA = 400, 32, 1e-4
"""Half of the records are members; a step takes a batch of them on average."""
FORGOTTEN = 1.0
"""The epsilon that a training without noise is audited against."""
EPSILONS = (1.0, 4.0, 10.0, math.inf)
LORA = {"kind": "lora", "r": 16, "lora_alpha": 32}
TEXTS: dict[str, Any] = {
    "per_device_train_batch_size": 16, "gradient_accumulation_steps": BATCH // 16,
    "num_train_epochs": 10, "save_strategy": "no",
}  # fmt: skip
DIFFUSION = DiffusionTrainingSpec(steps=250, batch_size=BATCH, learning_rate=2e-3, warmup=20)
AUTOENCODER = AutoencoderTrainingSpec(epochs=40, batch_size=BATCH, learning_rate=2e-3)


@dataclass(frozen=True)
class Cell:
    """One model at one budget.

    Attributes
    ----------
    claimed : epsilon that the manifest says was spent; infinite without privacy.
    noise : standard deviation, in lengths that gradients are cut to.
    by_opacus : epsilon by opacus' accountants, asked after every step.
    bound, auc : of the audit's one attack.
    broken : whether the audit refutes the claim.
    loss : on held-out records.
    """

    claimed: float
    noise: float
    by_opacus: dict[str, float]
    bound: float
    auc: float
    broken: bool
    loss: float


@dataclass(frozen=True)
class Trained:
    """What a training left, for an audit.

    Attributes
    ----------
    steps : of the optimizer.
    checkpoint : the last one's facts.
    """

    members: int
    steps: int
    checkpoint: dict[str, Any]
    target: dict[str, Any]
    audit: dict[str, Any]


def language_model(method: str | dict[str, Any], rate: float) -> Callable[..., Trained]:
    """The demo's base, fine-tuned on Austen by a method."""

    def train(out: Path, dp: DpSpec | None) -> Trained:
        base, texts = out.parent / "base", out.parent / "texts.jsonl"
        if not base.exists():
            copy_models(out.parent)
        write_jsonl(texts, dealt(audit_passages(), {"all": RECORDS}, "records")["all"])
        given = {
            "output": str(out / "trained"),
            "base": str(base),
            "records": {"files": str(texts)},
            "split": {"inclusion": "randomized"},
            "training": {"max_length": 96},
            "method": method,
            "trainer": {**TEXTS, "learning_rate": rate},
        }
        if dp is not None:
            given["dp"] = dp.model_dump()
        manifest = run_training(TargetTrainingSpec.model_validate(given))
        folder = out / "trained" / manifest["checkpoints"][-1]["folder"]
        model = {"model": str(folder)}
        if manifest["method"]["kind"] != "full":
            model = {"model": str(base), "adapter": str(folder)}
        return Trained(
            manifest["split"]["members"],
            manifest["steps"],
            manifest["checkpoints"][-1],
            model,
            {"from_training": str(out / "trained"), "attacks": ["ratio@base"]},
        )

    return train


def unet(out: Path, dp: DpSpec | None) -> Trained:
    """A small UNet on scikit-learn's digits."""
    fresh_pipeline(out / "fresh", SHAPE, channels=(8, 16))
    split = split_and_write(digits(), None, RECORDS // 2, RECORDS // 2, 0, out)
    facts = train_denoiser(
        split.members, out / "fresh", DIFFUSION, out / "trained", seed=0, dp=dp,
        progress=lambda *_: None, measure_on=split.held_out, checkpoint_every=DIFFUSION.steps,
    )  # fmt: skip
    return _of_images(out, facts, DIFFUSION.steps)


def vae(out: Path, dp: DpSpec | None) -> Trained:
    """A small VAE on scikit-learn's digits."""
    config = AutoencoderConfig(
        objective="vae", image_shape=SHAPE, latent=8, channels=(8, 16), normalization="group"
    )
    split = split_and_write(digits(), None, RECORDS // 2, RECORDS // 2, 0, out)
    facts = train_autoencoder(
        split.members, config, AUTOENCODER, out / "trained", seed=0, dp=dp,
        progress=lambda *_: None, measure_on=split.held_out, checkpoint_every=AUTOENCODER.epochs,
    )  # fmt: skip
    return _of_images(out, facts, AUTOENCODER.epochs * math.ceil(RECORDS / 2 / BATCH))


def _of_images(out: Path, facts: dict[str, Any], steps: int) -> Trained:
    checkpoint = facts["checkpoints"][-1]
    records = {
        "kind": "image", "split": "randomized", "members": str(out / "members.parquet"),
        "non_members": str(out / "non_members.parquet"),
    }  # fmt: skip
    model = {"model": str(out / "trained" / checkpoint["folder"])}
    return Trained(
        RECORDS // 2, steps, checkpoint, model, {"records": records, "attacks": ["loss"]}
    )


MODELS: dict[str, tuple[str, Callable[..., Trained]]] = {
    "lora": ("language model, LoRA", language_model(LORA, 5e-3)),
    "full": ("language model, all weights", language_model("full", 1e-3)),
    "unet": ("UNet", unet),
    "vae": ("VAE", vae),
}


def cell(out: Path, model: str, epsilon: float) -> Cell:
    """Train and audit, or read what was found before."""
    done = out / "cell.json"
    if done.is_file():
        return Cell(**json.loads(done.read_text()))
    out.mkdir(parents=True, exist_ok=True)
    dp = None if math.isinf(epsilon) else DpSpec(epsilon=epsilon, delta=DELTA)
    trained = MODELS[model][1](out, dp)
    claimed, noise, by_opacus = math.inf, 0.0, {}
    if dp is not None:
        privacy = plan_privacy(dp, trained.members, BATCH, trained.steps)
        claimed, noise = trained.checkpoint["privacy"]["epsilon"], privacy.noise_multiplier
        by_opacus = {kind: step_by_step(kind, privacy) for kind in ("prv", "rdp")}
    claim = {"epsilon": FORGOTTEN if dp is None else claimed, "delta": DELTA}
    content = {
        **trained.audit,
        "targets": [{"name": "t", "claim": claim, **trained.target}],
        "metrics": {"delta": DELTA},
        "resources": {"engine": "local"},
        "output": str(out / "report"),
        "store": str(out / "store"),
    }
    (out / "audit.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    result = run_audit(load_spec(out / "audit.yaml"), Console(stderr=True))
    (found,) = (one for one in result.metrics if isinstance(one, AttackMetrics))
    made = Cell(
        claimed,
        noise,
        by_opacus,
        max((bound.value for bound in found.epsilon), default=0.0),
        found.auc.value,
        any(one.status == "failed" for one in result.privacy),
        float(trained.checkpoint["held_out_loss"]),
    )
    done.write_text(json.dumps(asdict(made)) + "\n", encoding="utf-8")
    return made


def step_by_step(kind: str, privacy: Privacy) -> float:
    """What opacus' accountant says of a training that tells it of every step."""
    from opacus.accountants import create_accountant

    accountant = create_accountant(mechanism=kind)
    for _ in range(privacy.steps):
        accountant.step(noise_multiplier=privacy.noise_multiplier, sample_rate=privacy.sample_rate)
    return float(accountant.get_epsilon(delta=privacy.spec.delta))


COLUMNS = ("model", "epsilon", "noise", "spent", "opacus, prv", "opacus, rdp", "bound", "AUC",
           "held-out loss", "the audit")  # fmt: skip


def row(model: str, epsilon: float, found: Cell) -> str:
    """A line of the table, in markdown."""
    spent = (found.claimed, *(found.by_opacus.get(kind, math.inf) for kind in ("prv", "rdp")))
    says = "broken" if found.broken else "not refuted"
    if math.isinf(epsilon):
        says = f"a claim of {FORGOTTEN:g}: {says}"
    return markdown([
        MODELS[model][0], f"{epsilon:g}", f"{found.noise:.2f}",
        *(f"{one:.3f}" for one in spent), f"{found.bound:.2f}", f"{found.auc:.3f}",
        f"{found.loss:.4g}", says,
    ])  # fmt: skip


def markdown(cells: Sequence[str]) -> str:
    """A line of a table; what is infinite is none."""
    return f"| {' | '.join('none' if cell == 'inf' else cell for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS))
    given = parser.parse_args()
    out = given.out.resolve()
    lines = [markdown(COLUMNS), markdown(["---"] * len(COLUMNS))]
    for model in given.models:
        for epsilon in given.epsilons:
            found = cell(out / f"{model}-{epsilon:g}", model, epsilon)
            lines.append(row(model, epsilon, found))
            print(lines[-1], flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
