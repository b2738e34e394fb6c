"""One audit of a DDPM and a flow, asked at the same shares of their paths."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_audit import console
from small_image_audit import digits, write_image_audit, write_images

from raymia.modalities.resolve import resolve_inputs
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

SHARES = [0.05, 0.3]
ATTACKS = ["loss", "pfami", "secmi", "pia", "pian", "sima"]  # alone, and with the reference
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
    made = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    made.register_modules(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    made.save_pretrained(places["flow"])
    return places


def audit_file(folder: Path, models: dict[str, Path], **changes: object) -> Path:
    return write_image_audit(
        folder, models["ddpm"],
        targets=[{"name": name, "model": str(place)} for name, place in models.items()],
        records={
            "kind": "image",
            "members": [write_images(folder / "in", digits()[:4])],
            "non_members": [write_images(folder / "out", digits()[4:8])],
        },
        probes={
            "denoising": {"timesteps": SHARES},
            "proximal": {"timesteps": SHARES},
            "clean": {"timesteps": SHARES},
            "captions": {"timesteps": SHARES},
            "inversion": {"timestep": 0.1, "step": 0.02},
            **changes,
        },
        neighbors={"kind": "crop", "strengths": [0.9]},
        references={"self_generated": REFERENCE},
        attacks=ATTACKS,
    )  # fmt: skip


def test_every_attack_scores_a_ddpm_and_a_flow_in_one_audit(
    models: dict[str, Path], tmp_path: Path
) -> None:
    spec = load_spec(audit_file(tmp_path / "audit", models))
    result = run_audit(spec, console())
    assert result.complete
    rows = pq.read_table(Path(spec.output) / "scores.parquet").to_pylist()
    found = {name: [r["score"] for r in rows if r["target"] == name] for name in models}
    assert {name: len(scores) for name, scores in found.items()} == dict.fromkeys(
        models, 8 * 2 * len(ATTACKS)
    )
    assert np.isfinite(found["ddpm"] + found["flow"]).all()
    assert not np.allclose(found["ddpm"], found["flow"])


def test_timesteps_beyond_a_schedule_are_refused_and_shares_are_not(
    models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="500 is outside of the schedule of ddpm, which ends at 1"):
        resolve_inputs(load_spec(audit_file(tmp_path, models, denoising={"timesteps": [500]})))


@pytest.mark.parametrize(
    ("inversion", "said"),
    [
        ({"timestep": 0.1, "step": 10}, "should both be timesteps, or both be shares"),
        ({"timestep": 0.1, "step": 0.03}, "should be a multiple of step 0.03"),
        ({"timestep": 5}, "should be a multiple of step 10"),
    ],
)
def test_an_inversion_that_does_not_end_on_a_step_is_refused(
    inversion: dict[str, float], said: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load_spec(audit_file(tmp_path, models, inversion=inversion))
