"""Attacks on captions in an audit of a LoRA: they see the adapter, and its base calibrates them."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pyarrow.parquet as pq
import pytest
from small_audit import console
from small_image_models import save_pipeline
from small_images import picture, save
from small_loras import UNET, adapted, save_by_diffusers

from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

WORDS = ["a cat", "a dog", "a cat on a mat", "a dog on a mat", "on a mat", "a mat"]


@pytest.mark.long
def test_clid_and_its_kin_score_a_lora_as_the_model_it_is_fused_into(tmp_path):
    pipeline = save_pipeline("stable", tmp_path / "base").pipeline
    lora = save_by_diffusers(tmp_path / "lora", adapted(pipeline.unet, UNET, seed=1))
    fused = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "base")
    fused.load_lora_weights(str(lora))
    fused.fuse_lora()
    fused.unload_lora_weights()
    fused.save_pretrained(tmp_path / "fused")
    for number, words in enumerate(WORDS):
        kind = ("members", "others", "population")[number % 3]
        save(tmp_path / kind / f"{number}.png", picture(number, (16, 16)))
        (tmp_path / kind / f"{number}.txt").write_text(words)
    (tmp_path / "audit.yaml").write_text(
        "records: {kind: image, members: members, non_members: others, population: population, "
        "caption_column: txt}\n"
        "targets: [{name: lora, model: base, adapter: lora}, {name: fused, model: fused}]\n"
        "references: {base: {model: base}}\n"
        "attacks: [clid, uncaptioned, pairing]\n"
        "resources: {engine: local}\n"
    )
    spec = load_spec(tmp_path / "audit.yaml")
    run_audit(spec, console())
    scores: dict[str, dict[tuple[str, str], float]] = {"lora": {}, "fused": {}}
    for row in pq.read_table(Path(spec.output) / "scores.parquet").to_pylist():
        scores[row["target"]][row["record_id"], row["attack"]] = row["score"]
    assert len(scores["lora"]) == 4 * 6
    assert scores["lora"] == pytest.approx(scores["fused"], rel=1e-3, abs=1e-5)
    beside = [value for (_, attack), value in scores["lora"].items() if "@base" in attack]
    assert min(map(abs, beside)) > 1e-6  # so that the adapter was asked, and not its base
