"""One audit of a DDPM and a flow, asked at the same shares of their paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_audit import console
from small_families import save_family
from small_image_audit import digits, write_image_audit, write_images

from raymia.modalities.resolve import resolve_inputs
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

SHARES = [0.05, 0.3]
ATTACKS = ["loss", "loss_per_byte", "peak_error", "pfami", "secmi", "pia", "pian", "sima",
           "sima_mc"]  # fmt: skip  # alone, and with the reference
NETWORKS = ["pfami_nns", "secmi_nns"]
ON_CAPTIONS = ["clid", "uncaptioned", "pairing"]
REFERENCE = {
    "kind": "self_generated", "images": 8, "sampling_steps": 4, "generation_batch": 8,
    "training": {"steps": 4, "batch_size": 4, "warmup": 1},
}  # fmt: skip


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A DDPM of 200 timesteps, and the same network as a flow."""
    places = {name: tmp_path / name for name in ("ddpm", "flow")}
    fresh_pipeline(
        places["ddpm"], (1, 8, 8), channels=(8, 16), attention=False, train_timesteps=200
    )
    network = diffusers.UNet2DModel.from_pretrained(places["ddpm"] / "unet")
    save_flow(network, places["flow"])
    return places


def save_flow(network: Any, folder: Path) -> None:
    made = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    made.register_modules(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    made.save_pretrained(folder)


def audit_file(
    folder: Path,
    models: dict[str, Path],
    probes: dict[str, Any] | None = None,
    each: int = 4,
    **changes: Any,
) -> Path:
    """An audit of so many members and others; what is given replaces whole keys."""
    given: dict[str, Any] = {
        "targets": [{"name": name, "model": str(place)} for name, place in models.items()],
        "records": {
            "kind": "image",
            "members": [write_images(folder / "in", digits()[:each])],
            "non_members": [write_images(folder / "out", digits()[each : 2 * each])],
        },
        "probes": {
            "denoising": {"timesteps": SHARES},
            "proximal": {"timesteps": SHARES},
            "clean": {"timesteps": SHARES},
            "captions": {"timesteps": SHARES},
            "averaged": {"timesteps": SHARES, "pairs": 1},
            "inversion": {"timestep": 0.1, "step": 0.02},
            **(probes or {}),
        },
        "neighbors": {"kind": "crop", "strengths": [0.9]},
        "references": {"self_generated": REFERENCE},
        "attacks": ATTACKS,
        **changes,
    }
    return write_image_audit(folder, models["flow"], **given)


def scores_of(file: Path) -> list[dict[str, Any]]:
    spec = load_spec(file)
    assert run_audit(spec, console()).complete
    rows: list[dict[str, Any]] = pq.read_table(Path(spec.output) / "scores.parquet").to_pylist()
    return rows


def by_attack(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["attack"], []).append(row["score"])
    return found


def test_every_attack_scores_a_ddpm_and_a_flow_in_one_audit(
    models: dict[str, Path], tmp_path: Path
) -> None:
    rows = scores_of(audit_file(tmp_path / "audit", models))
    found = {name: [r["score"] for r in rows if r["target"] == name] for name in models}
    assert {name: len(scores) for name, scores in found.items()} == dict.fromkeys(
        models, 8 * 2 * len(ATTACKS)
    )
    assert np.isfinite(found["ddpm"] + found["flow"]).all()
    assert not np.allclose(found["ddpm"], found["flow"])


def assert_scored(rows: Any, attacks: Sequence[str], records: int) -> None:
    """Alone and with the base, each record by a score of its own."""
    found = by_attack(rows)
    assert {*found} == {f"{name}{at}" for name in attacks for at in ("", "@base")}
    for name, scores in found.items():
        assert np.isfinite(scores).all(), name
        assert len({*scores}) == records, name


def test_networks_judge_what_a_flow_answers_alone_and_beside_its_base(
    models: dict[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    base = diffusers.UNet2DModel.from_config(
        diffusers.UNet2DModel.load_config(models["flow"] / "unet")
    )
    save_flow(base, tmp_path / "base")
    rows = scores_of(
        audit_file(
            tmp_path / "audit", {"flow": models["flow"]}, each=24, attacks=NETWORKS,
            references={"base": {"model": str(tmp_path / "base")}},
        )
    )  # fmt: skip
    assert_scored(rows, NETWORKS, 48)


def test_attacks_on_captions_score_a_flow_alone_and_beside_its_base(tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    pipeline = save_family("sd3", base).pipeline
    torch.manual_seed(1)
    with torch.inference_mode():
        for weights in pipeline.transformer.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
        pipeline.save_pretrained(tuned)
    folder, draws = tmp_path / "audit", np.random.default_rng(0)
    captions = ("a cat on a mat", "a dog", "a mat", "dog on cat")
    for place in ("in", "out", "others"):
        (folder / place).mkdir(parents=True)
        for number, caption in enumerate(captions):
            pixels = draws.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
            (folder / place / f"{number}.txt").write_text(caption)
    rows = scores_of(
        audit_file(
            folder, {"flow": tuned}, attacks=ON_CAPTIONS, neighbors=None,
            references={"base": {"model": str(base)}},
            records={"kind": "image", "members": "in", "non_members": "out",
                     "population": "others", "caption_column": "txt"},
        )
    )  # fmt: skip
    assert_scored(rows, ON_CAPTIONS, 8)


def test_timesteps_beyond_a_schedule_are_refused_and_shares_are_not(
    models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="500 is outside of the schedule of ddpm, which ends at 1"):
        resolve_inputs(load_spec(audit_file(tmp_path, models, {"denoising": {"timesteps": [500]}})))


@pytest.mark.parametrize(
    ("inversion", "said"),
    [
        ({"timestep": 0.1, "step": 10}, "should both be timesteps, or both be shares"),
        ({"timestep": 0.1, "step": 0.03}, "should be a multiple of step 0.03"),
        ({"timestep": 5}, "should be a multiple of step 10"),
        ({"timestep": 0.8, "step": 0.4}, "before 1, where all is noise, but 0.8 and 0.4 are 1.2"),
        ({"timestep": 0.9, "step": 0.1}, "before 1, where all is noise, but 0.9 and 0.1 are 1;"),
    ],
)
def test_an_inversion_that_does_not_end_on_a_step_of_the_path_is_refused(
    inversion: dict[str, float], said: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load_spec(audit_file(tmp_path, models, {"inversion": inversion}))
