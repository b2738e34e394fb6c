"""What kohya's scripts wrote of a training into the header of a LoRA is read, and held against what
the audit file says of it."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import yaml
from safetensors.torch import load_file, save_file
from small_image_models import save_pipeline
from small_images import picture, save
from small_loras import adapted, save_by_kohya

from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.kohya_header import written_by_kohya
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

PLAIN = {"ss_clip_skip": "None", "ss_zero_terminal_snr": "False", "ss_resolution": "(16, 16)",
         "ss_max_token_length": "None", "modelspec.prediction_type": "epsilon"}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kohya") / "base"
    save_pipeline("stable", folder)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    save_by_kohya(folder.parent / "lora.safetensors", adapted(unet, ["to_q"], 1))
    return folder


def audited(base, folder, *headers, training=None):
    """What an audit of LoRAs with such headers, all on one target, resolves to."""
    adapters = []
    for number, header in enumerate(headers):
        file = folder / f"{number}.safetensors"
        save_file(load_file(base.parent / "lora.safetensors"), file, metadata=header)
        adapters.append({"path": str(file), "weight": 1})
    for number in range(4):
        name = ("members", "others")[number % 2]
        save(folder / name / f"{number}.png", picture(number, (16, 16)))
        (folder / name / f"{number}.txt").write_text("a cat on a mat")
    spec = {
        "records": {"kind": "image", "members": "members", "non_members": "others",
                    "caption_column": "txt"},
        "targets": [{"name": "tuned", "model": str(base), "adapter": adapters}],
        **({} if training is None else {"training": training}),
    }  # fmt: skip
    (folder / "audit.yaml").write_text(yaml.safe_dump(spec))
    return resolve_inputs(load_spec(folder / "audit.yaml"))


def told(inputs):
    return dict(inputs.targets["tuned"].query.told.given)


def test_what_a_header_says_is_taken_and_told_where_the_audit_file_does_not_say_it(base, tmp_path):
    header = {**PLAIN, "ss_clip_skip": "2", "modelspec.prediction_type": "v",
              "ss_zero_terminal_snr": "True"}  # fmt: skip
    inputs = audited(base, tmp_path, header)
    file = tmp_path / "0.safetensors"
    found = {"clip_skip": 2, "prediction": "v_prediction", "zero_terminal_snr": True}
    assert told(inputs) == found
    assert list(inputs.noted) == [
        f"training: tuned was trained with `{key}: {str(value).lower()}`, as the header of {file} "
        "says, and is asked so"
        for key, value in found.items()
    ]
    said = audited(base, tmp_path, header, training={"clip_skip": 2, "flip": False})
    assert told(said) == found
    assert not [line for line in (*said.noted, *said.assumed) if "`clip_skip" in line]


def test_a_header_of_a_plain_training_changes_nothing(base, tmp_path):
    inputs = audited(base, tmp_path, PLAIN)
    assert (told(inputs), inputs.noted) == ({}, ())
    known = audited(base, tmp_path, PLAIN, training={"flip": False})
    assert not [line for line in known.assumed if "`clip_skip`" in line or "predicts" in line]


@pytest.mark.parametrize(
    ("header", "training", "said"),
    [
        ({"ss_clip_skip": "2"}, {"clip_skip": 1}, "training.clip_skip: it is 1, and the header of"),
        ({"ss_clip_skip": "None"}, {"clip_skip": 2}, " says 1, as its training wrote it"),
        ({"ss_base_model_version": "sd_v2_v"}, {"prediction": "epsilon"}, "says v_prediction, as"),
        ({"ss_zero_terminal_snr": "True"}, {"zero_terminal_snr": False}, "says True, as its"),
        ({"ss_resolution": "(32, 48)"}, {"resolution": 32}, "says 32 x 48, as its training"),
    ],
)
def test_an_audit_file_that_says_otherwise_than_a_header_is_refused(
    header, training, said, base, tmp_path
):
    with pytest.raises(InputError) as caught:
        audited(base, tmp_path, header, training=training)
    assert said in caught.value.problems[0]


def test_headers_that_say_otherwise_than_each_other_leave_it_to_the_audit_file(base, tmp_path):
    headers = [{"ss_clip_skip": "2", "ss_resolution": "8"}, {"ss_clip_skip": "None"}]
    with pytest.raises(InputError) as caught:
        audited(base, tmp_path, *headers)
    assert caught.value.problems == [
        f"training.clip_skip: the headers of its LoRAs say 2 by {tmp_path / '0.safetensors'} and 1 "
        f"by {tmp_path / '1.safetensors'}, and a model is asked in one way; say it here"
    ]
    for layer, found in ((1, {}), (2, {"clip_skip": 2})):
        assert told(audited(base, tmp_path, *headers, training={"clip_skip": layer})) == found


def test_what_is_not_asked_as_a_header_says_is_told(base, tmp_path):
    file = tmp_path / "0.safetensors"
    header = {**PLAIN, "ss_resolution": "(24, 32)", "ss_max_token_length": "225",
              "ss_enable_bucket": "True"}  # fmt: skip
    assert list(audited(base, tmp_path, header).noted) == [
        f"training: images were trained in buckets of their own aspect, as the header of {file} "
        "says; say `crop: bucket` where not all are squares",
        f"training: tuned was trained on images of 24 x 32, as the header of {file} says, and is "
        "asked about images of 16 x 16; say `resolution`",
        f"training: tuned read up to 225 tokens of a caption in chunks, as the header of {file} "
        "says, and is asked with the first chunk of longer ones",
    ]


def test_buckets_that_are_said_are_told_once(base, tmp_path):
    header = {**PLAIN, "ss_enable_bucket": "True"}
    for crop, count in (("bucket", 1), ("center", 1)):
        noted = audited(base, tmp_path, header, training={"crop": crop}).noted
        assert len([line for line in noted if "in buckets of their own aspect" in line]) == count


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"modelspec.prediction_type": "v"},  # of another tool
        {"ss_clip_skip": "-2", "ss_zero_terminal_snr": "yes", "ss_resolution": "(a, b)",
         "ss_max_token_length": "75", "modelspec.prediction_type": "x0"},
    ],
)  # fmt: skip
def test_nothing_is_read_out_of_what_kohyas_scripts_do_not_write(header, base, tmp_path):
    save_file(load_file(base.parent / "lora.safetensors"), tmp_path / "a", metadata=header)
    assert written_by_kohya(tmp_path / "a") == {}
