"""Captions longer than the text encoders read are counted before a model is loaded."""

from __future__ import annotations

import pytest
from small_families import save_family
from small_image_audit import write_image_audit
from small_image_models import save_pipeline
from small_images import picture, save

from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.long_captions import CHUNKS, cut_captions
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.spec.file import load_spec


def said(*kinds, captions, folder):
    models = {}
    for kind in kinds:
        made = save_pipeline if kind == "stable" else save_family
        made(kind, folder / kind)
        models[kind] = resolve_image_model(ModelSpec(model=str(folder / kind)), kind, on_gpu=False)
    return cut_captions(models, captions)


def test_captions_that_clip_cuts_are_counted_by_record(tmp_path):
    captions = ["a " * 10, "a cat " * 10, "a cat " * 10, None, "", "dog " * 11]
    assert said("stable", captions=captions, folder=tmp_path) == [
        "stable: 3 of 4 captions are longer than the 12 tokens that text_encoder of stable reads, "
        f"and are cut there; the longest has 42{CHUNKS}"
    ]
    assert said("stable", captions=[None, "a cat"], folder=tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "part", "length"),
    [
        ("pixart", "text_encoder", 120),
        ("sd3", "text_encoder_3", 256),
        ("aura_flow", "text_encoder", 256),
        ("sana", "text_encoder", 300),
    ],
)
def test_each_encoder_cuts_where_its_familys_pipeline_does(kind, part, length, tmp_path):
    just, longer = "cat " * (length - 1), "cat " * length  # and an end
    found = said(kind, captions=[just, longer], folder=tmp_path)
    assert found[-1] == (
        f"{kind}: 1 of 2 captions are longer than the {length} tokens that {part} of {kind} reads, "
        f"and are cut there; the longest has {length + 1}"
    )
    assert len(found) == (3 if kind == "sd3" else 1)


def test_models_on_one_base_are_told_of_together(tmp_path):
    save_pipeline("stable", tmp_path / "base")
    model = resolve_image_model(ModelSpec(model=str(tmp_path / "base")), "base", on_gpu=False)
    (line,) = cut_captions({"tuned": model, "base": model}, ["a " * 11])
    assert line.startswith("tuned, base: 1 of 1 captions are longer than the 12 tokens")


def test_a_caption_that_is_cut_is_told_of_in_the_plan(tmp_path):
    save_pipeline("stable", tmp_path / "model")
    for number, words in enumerate((3, 30, 30, 3)):
        folder = tmp_path / ("members" if number < 2 else "non_members")
        save(folder / f"{number}.png", picture(number, size=(16, 16)))
        (folder / f"{number}.txt").write_text("a " * words)
    file = write_image_audit(
        tmp_path, tmp_path / "model", neighbors=None, attacks=["loss"],
        records={"kind": "image", "members": "members", "non_members": "non_members",
                 "caption_column": "txt"},
    )  # fmt: skip
    inputs = resolve_inputs(load_spec(file))
    line = ("target: 2 of 4 captions are longer than the 12 tokens that text_encoder of model "
            f"reads, and are cut there; the longest has 32{CHUNKS}")  # fmt: skip
    assert line in inputs.noted
