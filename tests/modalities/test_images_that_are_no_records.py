"""Images beside the records: what a target generated, and what shadows were trained on."""

from __future__ import annotations

import numpy as np
import pytest
from small_image_models import save_pipeline
from small_images import picture, save

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.scoring.reduction import score_target
from raymia.spec.file import parse_spec
from raymia.util.errors import InputError

RECORDS = ("members/0", "members/1", "others/2", "others/3")


def pictures(folder, **sizes):
    """A folder of pictures by name; the number in a name says which picture it is."""
    for name, size in sizes.items():
        number = int(name.rpartition("_")[2])
        save(folder / f"{name}.png", picture(number, size, "L"))
    return str(folder)


def resolved(folder, records=None, size=(8, 8), **sections):
    """An audit of two members and two others, each with a caption and a class beside it."""
    for name in RECORDS:
        number = int(name[-1])
        save(folder / f"{name}.png", picture(number, size, "L"))
        (folder / f"{name}.txt").write_text("a cat on a mat")
        (folder / f"{name}.cls").write_text("1")
    places = {"members": str(folder / "members"), "non_members": str(folder / "others")}
    content = {
        "records": {"kind": "image", **places, **(records or {})},
        "store": str(folder / "store"),
        **sections,
    }
    return resolve_inputs(parse_spec(content, "audit.yaml"))


def of_samples(folder, samples, records=None, **attack):
    return resolved(
        folder, records,
        targets=[{"name": "gan", "samples": samples}],
        attacks=[{"attack": "gan_leaks", **attack}, "monte_carlo"],
    )  # fmt: skip


def scores_on(inputs, folder):
    store = EvidenceStore(str(folder / "store"))
    (plan,) = plan_audit(inputs, store)
    found = score_target(inputs, store, plan)
    return {label.partition("(")[0]: values for label, values in found.items()}


# --------------------------------------------------------------------------- samples


def test_a_picture_that_a_target_writes_again_and_again_counts_each_time(tmp_path):
    names = ["a_7", "b_0", "c_0", "d_8", "e_0", "f_9"]
    samples = pictures(tmp_path / "gan", **dict.fromkeys(names, (8, 8)))
    inputs = of_samples(tmp_path, samples, parameters={"k": 3})
    given = inputs.modality.samples["gan"]
    expected = [np.asarray(picture(int(name[-1]), (8, 8), "L")) for name in names]
    assert given[:, 0].tolist() == [one.tolist() for one in expected], "in the order of the files"
    assert inputs.records.set_aside == []
    found = scores_on(inputs, tmp_path)
    recited = (
        inputs.records.table["payload"]
        .to_pylist()
        .index({"pixels": expected[1].tobytes(), "caption": None})
    )
    others = np.delete(found["gan_leaks"], recited)
    assert found["gan_leaks"][recited] == 0, "the three nearest samples are the record itself"
    assert (others < 0).all()
    assert found["monte_carlo"][recited] >= 3 / 6, "the share of the samples that are near it"


def test_samples_that_repeat_others_are_counted_aloud(tmp_path):
    sizes = dict.fromkeys(["a_7", "b_0", "c_0", "d_0"], (8, 8))
    inputs = of_samples(tmp_path, pictures(tmp_path / "gan", **sizes))
    assert inputs.noted == (
        "gan: 2 of 4 samples repeat another pixel by pixel, and count as often as they were given",
    )
    alone = of_samples(tmp_path, pictures(tmp_path / "one", a_7=(8, 8), b_0=(8, 8)))
    assert alone.noted == ()


def test_how_often_a_sample_was_given_is_part_of_what_it_is_known_by(tmp_path):
    def known_as(name, *numbers):
        sizes = {f"{'abc'[place]}_{number}": (8, 8) for place, number in enumerate(numbers)}
        return of_samples(tmp_path, pictures(tmp_path / name, **sizes)).targets["gan"].fingerprint

    assert known_as("once", 0, 7) == known_as("in another order", 7, 0)
    assert len({known_as("once", 0, 7), known_as("b", 0, 0, 7), known_as("c", 0, 7, 7)}) == 3


def test_samples_of_another_size_are_set_aside_and_named(tmp_path):
    samples = pictures(tmp_path / "gan", a_7=(8, 8), b_8=(16, 16), c_9=(8, 8))
    inputs = of_samples(tmp_path, samples)
    (aside,) = inputs.records.set_aside
    assert aside.where == f"{samples}/b_8.png"
    assert aside.reason.startswith("a sample that is not of the models' 8 x 8 pixels")
    assert aside.reason.endswith("came: 16 x 16")
    assert len(inputs.modality.samples["gan"]) == 2


def test_samples_of_which_none_can_be_used_are_refused_with_what_they_are(tmp_path):
    samples = pictures(tmp_path / "gan", a_7=(16, 16), b_8=(16, 16))
    with pytest.raises(InputError) as caught:
        of_samples(tmp_path, samples)
    (said,) = caught.value.problems
    assert said.startswith(f"targets[0].samples: not one usable sample in {samples} (2 x a sample")
    assert said.endswith("; a sample is an image")


@pytest.mark.parametrize("column", [{"caption_column": "txt"}, {"class_column": "cls"}])
def test_samples_need_no_captions_where_records_have_some(tmp_path, column):
    samples = pictures(tmp_path / "gan", a_7=(8, 8), b_0=(8, 8))
    inputs = of_samples(tmp_path, samples, column)
    bare = of_samples(tmp_path, samples)
    assert len(inputs.modality.samples["gan"]) == 2
    assert inputs.targets["gan"].fingerprint == bare.targets["gan"].fingerprint


# --------------------------------------------------------------------------- shadows


def test_what_cannot_be_read_of_a_shadows_members_is_set_aside_and_named(tmp_path):
    """A record that is lost there would count as one that the shadow was not trained on."""
    size = (16, 16)
    save_pipeline("ddpm", tmp_path / "model")
    model = {"model": str(tmp_path / "model")}
    members = pictures(tmp_path / "shadow", a_0=size, b_0=size, c_3=size, d_8=(8, 8))
    inputs = resolved(
        tmp_path, size=size,
        targets=[{"name": "target", **model}],
        references={"shadow": {"kind": "shadow", "members": members, **model}},
    )  # fmt: skip
    is_in = [one in inputs.shadow_members["shadow"] for one in inputs.records.ids]
    assert is_in == [True, False, False, True]
    (aside,) = inputs.records.set_aside
    assert aside.where == f"{members}/d_8.png"
    assert aside.reason.startswith("a member of a shadow that is not of the models' 16 x 16 pixels")
