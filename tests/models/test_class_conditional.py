"""UNets that are told the class of an image: asked with that of the record, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_image_audit import write_image_audit
from small_image_models import save_pipeline, save_with_classes

from raymia.modalities.images.inputs import check_classes
from raymia.modalities.resolve import resolve_inputs
from raymia.models.image_source import resolve_image_model
from raymia.questions.base import Item
from raymia.questions.noiseless import CleanQuestion
from raymia.spec import ImageRecordsSpec, ModelSpec, PoolSpec
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

CLASSES = 4


@pytest.fixture
def network(tmp_path: Path):
    return save_with_classes(tmp_path / "model", CLASSES)


def resolved(folder: Path):
    return resolve_image_model(ModelSpec(model=str(folder)), "targets[0].model", on_gpu=False)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)


def audit_file(folder: Path, classes, **records) -> Path:
    for number in range(len(classes)):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    for name, start in (("in", 0), ("out", 1)):
        rows = [f"{n}.png,{classes[n]}" for n in range(start, len(classes), 2)]
        (folder / f"{name}.csv").write_text("\n".join(["image,label", *rows]))
    return write_image_audit(
        folder, folder / "model", neighbors=None, attacks=["loss"],
        records={"kind": "image", "members": ["in.csv"], "non_members": ["out.csv"], **records},
    )  # fmt: skip


def test_a_network_is_asked_with_the_class_of_each_record(network, tmp_path):
    classes = [3, 0, 3]
    items = [
        Item(f"r{n}", 0, {"pixels": picture(n).tobytes(), "caption": str(label)})
        for n, label in enumerate(classes)
    ]
    rows = CleanQuestion((10, 700)).ask(
        resolved(tmp_path / "model").loader(PoolSpec()).load(), items
    )
    images = torch.from_numpy(np.stack([picture(n) for n in range(3)]))[:, None] / 255 * 2 - 1
    with torch.inference_mode():
        seen = [network(images, t, torch.tensor(classes)).sample for t in (10, 700)]
        other = network(images, 10, torch.tensor([1, 1, 1])).sample
    expected = torch.stack([one.square().flatten(1).mean(1) for one in seen], dim=1)
    np.testing.assert_allclose(rows["l2"].to_pylist(), expected.tolist(), rtol=1e-4)
    assert (other - seen[0]).abs().max() > 1e-3


@pytest.mark.usefixtures("network")
def test_the_class_is_read_from_its_column_and_is_part_of_the_record(tmp_path):
    def ids(classes: str) -> set[str]:
        file = audit_file(tmp_path, classes, class_column="label")
        return set(resolve_inputs(load_spec(file)).records.ids)

    assert ids("0123") == ids("0123")
    assert len(ids("0123") & ids("0120")) == 3


@pytest.mark.usefixtures("network")
def test_without_a_column_of_classes_the_model_is_refused_before_it_is_loaded(tmp_path):
    with pytest.raises(InputError, match=r"records.class_column: target takes one of 4 classes"):
        resolve_inputs(load_spec(audit_file(tmp_path, "0123")))


@pytest.mark.usefixtures("network")
def test_a_class_that_the_model_does_not_know_is_refused(tmp_path):
    with pytest.raises(InputError, match="class of a record is 7, and target knows 4, from 0 to 3"):
        resolve_inputs(load_spec(audit_file(tmp_path, "0127", class_column="label")))


def test_captions_and_classes_are_not_mixed(tmp_path):
    save_pipeline("stable", tmp_path)
    given = ImageRecordsSpec(kind="image", members=["a"], class_column="label")
    with pytest.raises(InputError, match="words is conditioned on text"):
        check_classes(given, {"words": resolved(tmp_path)}, ["1"])
    with pytest.raises(ValueError, match="give either `caption_column` or `class_column`"):
        ImageRecordsSpec(kind="image", members=["a"], class_column="b", caption_column="c")


@pytest.mark.usefixtures("network")
def test_such_a_model_is_told_no_captions(tmp_path):
    lacks = resolved(tmp_path / "model").capabilities.lacks
    assert "not conditioned on text" in lacks["text_conditioning"]
