"""Audits of LoRAs on diffusion models: how they are named, and that they score as fused models."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
from peft.utils import get_peft_model_state_dict
from small_audit import console
from small_families import save_family
from small_image_audit import digits, write_image_audit, write_images
from small_image_models import save_pipeline
from small_loras import adapted, save_by_diffusers, save_by_peft

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.plan.pools import pools_of
from raymia.prepare.image_split import parquet
from raymia.run.audit import run_audit
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec


def captioned_records(folder):
    """Four members and four others, of 16 x 16 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    for name, part in (("members", slice(4)), ("others", slice(4, 8))):
        (folder / f"{name}.parquet").write_bytes(parquet(pixels[part], ["a cat"] * 4))
    return {"kind": "image", "members": "members.parquet", "non_members": "others.parquet",
            "caption_column": "caption"}  # fmt: skip


def test_files_of_kohyas_scripts_are_named_by_a_pattern(tmp_path):
    for step in (10, 2):
        (tmp_path / f"mine-{step}.safetensors").touch()
    targets = [{"model": "base", "adapters": f"{tmp_path}/*.safetensors"}]
    spec = AuditSpec.model_validate(
        {"name": "n", "targets": targets, "records": {"kind": "image", "members": ["a"]},
         "output": str(tmp_path / "o"), "store": str(tmp_path / "s")}
    )  # fmt: skip
    problems = Problems()
    found, _ = expand_targets(spec, problems)
    assert not problems.found
    assert [target.name for target in found.targets] == ["mine-2", "mine-10"]
    assert found.targets[0].adapter == f"{tmp_path}/mine-2.safetensors"


def test_checkpoints_of_diffusers_scripts_are_named_by_a_pattern(tmp_path):
    base = tmp_path / "base"
    save_pipeline("stable", base)
    for seed, run in enumerate("ab"):
        for step in (20, 100):
            place = tmp_path / "runs" / run / f"checkpoint-{step}"
            unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
            save_by_diffusers(place, adapted(unet, ["to_q"], 10 * seed + step))
            for beside in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
                (place / beside).write_bytes(b"a pickle that is not read")
    records = captioned_records(tmp_path)
    pattern = {"model": str(base), "adapters": str(tmp_path / "runs" / "*" / "checkpoint-*")}
    file = write_image_audit(
        tmp_path, base, targets=[pattern], records=records, neighbors=None, attacks=["loss"]
    )
    targets = resolve_inputs(load_spec(file)).targets
    assert [*targets] == [f"{run}-checkpoint-{step}" for run in "ab" for step in (20, 100)]
    for name, found in targets.items():
        run, checkpoint = name.split("-", 1)
        place = tmp_path / "runs" / run / checkpoint / "pytorch_lora_weights.safetensors"
        assert found.adapter_places == (str(place),)
    assert len({found.fingerprint for found in targets.values()}) == 4


def scores_of(spec: AuditSpec) -> dict[str, dict[tuple[str, str], float]]:
    """By target, then by record and attack."""
    scores: dict[str, dict[tuple[str, str], float]] = {}
    for row in pq.read_table(Path(spec.output) / "scores.parquet").to_pylist():
        of_target = scores.setdefault(row["target"], {})
        of_target[row["record_id"], row["attack"]] = row["score"]
    return scores


@pytest.mark.long
def test_an_audit_scores_a_lora_of_a_flow_as_its_fused_twin(tmp_path):
    transformer = save_family("flux", tmp_path / "base").pipeline.transformer
    states = get_peft_model_state_dict(adapted(transformer, ["to_q", "to_out.0", "proj_mlp"], 1))
    diffusers.FluxPipeline.save_lora_weights(tmp_path / "lora", transformer_lora_layers=states)
    pipe = diffusers.FluxPipeline.from_pretrained(tmp_path / "base")
    pipe.load_lora_weights(str(tmp_path / "lora"))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "fused")
    named = {"base": {"model": "base"}, "fused": {"model": "fused"},
             "tuned": {"model": "base", "adapter": "lora"}}  # fmt: skip
    spec = load_spec(
        write_image_audit(
            tmp_path, tmp_path / "base", neighbors=None, attacks=["loss", "sima"],
            targets=[{"name": name, **target} for name, target in named.items()],
            records=captioned_records(tmp_path),
        )
    )  # fmt: skip
    run_audit(spec, console())
    scores = scores_of(spec)
    assert scores["tuned"] == pytest.approx(scores["fused"], rel=1e-3)
    assert scores["tuned"] != pytest.approx(scores["base"], rel=1e-2)


@pytest.mark.long
def test_an_audit_of_adapters_scores_them_as_fused_models_from_one_pool(tmp_path):
    from raymia.prepare.denoiser_files import fresh_pipeline

    fresh_pipeline(tmp_path / "base", (1, 8, 8), channels=(8, 16), attention=False)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "base")
    targets = [{"name": "base", "model": str(tmp_path / "base")}]
    for seed in (1, 2):
        unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "base" / "unet")
        place, model = save_by_peft(tmp_path / f"lora-{seed}", unet, seed=seed, r=4)
        targets.append({**targets[0], "name": place.name, "adapter": str(place)})
    fused = diffusers.DDPMPipeline(model.merge_and_unload(), pipeline.scheduler)
    fused.save_pretrained(tmp_path / "fused")
    targets.append({"name": "fused", "model": str(tmp_path / "fused")})
    records = {
        "kind": "image",
        "members": [write_images(tmp_path / "in", digits()[:4])],
        "non_members": [write_images(tmp_path / "out", digits()[4:8])],
    }
    file = write_image_audit(
        tmp_path, tmp_path / "base", targets=targets, records=records, neighbors=None,
        attacks=["loss", "pia", "sima"],
    )  # fmt: skip
    spec = load_spec(file)
    plan = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    pools = [pool for stages in plan.streams for pool in pools_of(stages)]
    assert [[stage.name for stage in pool.stages] for pool in pools] == [
        ["target:base", "target:lora-1", "target:lora-2"], ["target:fused"],
    ]  # fmt: skip
    run_audit(spec, console())

    scores = scores_of(spec)
    assert scores["lora-2"] == pytest.approx(scores["fused"], rel=1e-3)
    for one, other in (("lora-2", "base"), ("lora-2", "lora-1")):
        assert scores[one] != pytest.approx(scores[other], rel=1e-2)
