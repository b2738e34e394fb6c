"""Pixels of records are read where an attack looks at them, once, and no more than a shard has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from answered_audit import Answered, answer
from small_image_audit import SHAPE, digits, write_image_audit, write_images

from raymia.attacks.images import base
from raymia.attacks.images.base import png_bytes, remembered
from raymia.evidence import sharded
from raymia.modalities.images import evidence
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.records import images as image_records
from raymia.records.images import SCHEMA, pixels_array, pixels_of
from raymia.scoring.blind import _known_records
from raymia.scoring.reduction import score_target

BLIND = ["loss", "pfami", "learned_combination"]
LOOKING = ["loss_per_byte", "quantile"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """Six members, six others and a population, whose model is asked in this process."""
    torch.manual_seed(0)
    folder, images = tmp_path_factory.mktemp("run"), digits()
    fresh_pipeline(folder / "network", SHAPE, channels=(8, 8), attention=False)
    return answer(
        write_image_audit(
            folder, folder / "network", attacks=[*BLIND, *LOOKING],
            neighbors={"kind": "crop", "strengths": [0.9]},
            probes={"denoising": {"timesteps": [150]}},
            records={"kind": "image", "members": write_images(folder / "m", images[:6]),
                     "non_members": write_images(folder / "n", images[6:12]),
                     "population": write_images(folder / "p", images[12:40])},
        )
    )  # fmt: skip


def scores(run: Answered, attacks: list[str]) -> dict[str, np.ndarray]:
    chosen = [named for named in run.inputs.attacks if named.label in attacks]
    return score_target(replace(run.inputs, attacks=chosen), run.store, run.plans[0])


def test_attacks_on_answers_read_no_pixels(run: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("pixels are read that no attack looks at")

    for name in ("pixels_of", "pixels_array"):
        monkeypatch.setattr(evidence, name, refused)
    assert [*scores(run, BLIND)] == BLIND


def test_attacks_that_look_at_pixels_read_them_once(
    run: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(payloads: pa.ChunkedArray, shape: tuple[int, int, int]) -> np.ndarray:
        read.append(len(payloads))
        return pixels_of(payloads, shape)

    monkeypatch.setattr(evidence, "pixels_of", counted)
    assert [*scores(run, LOOKING)] == LOOKING
    assert read == [12]


def test_the_shift_check_reads_one_image_at_a_time(
    run: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(payloads: list[dict], shape: tuple[int, int, int]) -> np.ndarray:
        read.append(len(payloads))
        return pixels_array(payloads, shape)

    monkeypatch.setattr(image_records, "pixels_array", counted)
    known = _known_records(run.inputs, run.store, run.plans)
    assert read == []
    assert len(known.images) == len(known.ids) == 12
    payloads = run.inputs.records.table.filter(pc.field("is_member").is_valid())["payload"]
    assert np.array(list(known.images)).tobytes() == pixels_of(payloads, SHAPE).tobytes()
    assert read == [1] * 12


def test_scores_of_images_are_the_same_to_the_bit_in_shards(
    run: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = [*BLIND, *LOOKING]
    whole, read = scores(run, attacks), []

    def counted(payloads: pa.ChunkedArray, shape: tuple[int, int, int]) -> np.ndarray:
        read.append(len(payloads))
        return pixels_of(payloads, shape)

    monkeypatch.setattr(evidence, "pixels_of", counted)
    monkeypatch.setattr(sharded, "SHARD_BYTES", 5 * 64)
    found = scores(run, attacks)
    assert sum(read) == 12
    assert max(read) <= 5
    for label, values in whole.items():
        assert found[label].tobytes() == values.tobytes(), label


# --------------------------------------------------------------------------- pixels


def column(images: np.ndarray, rows: int) -> pa.ChunkedArray:
    """Payloads in pieces of so many rows."""
    payloads = [{"pixels": one.tobytes(), "caption": None} for one in images]
    kind = SCHEMA.field("payload").type
    return pa.chunked_array(
        [pa.array(payloads[i : i + rows], kind) for i in range(0, len(images), rows)], kind
    )


@pytest.mark.parametrize("rows", [3, 4, 10])
def test_pixels_of_a_column_are_those_of_its_rows(rows: int) -> None:
    images = np.arange(10 * 64, dtype=np.uint64).astype(np.uint8).reshape(10, *SHAPE)
    payloads = column(images, rows)
    assert pixels_of(payloads, SHAPE).tobytes() == images.tobytes()
    assert pixels_of(payloads.slice(2, 6), SHAPE).tobytes() == images[2:8].tobytes()
    assert pixels_of(payloads.slice(0, 0), SHAPE).shape == (0, *SHAPE)


def test_a_shard_of_images_has_no_more_bytes_than_a_shard_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few images that are; one that is larger is a shard of its own."""
    payloads = column(np.zeros((10, *SHAPE), np.uint8), 4)
    ends = {}
    for limit in (10, 200, 2**20):
        monkeypatch.setattr(sharded, "SHARD_BYTES", limit)
        shards = sharded.shards_of(payloads)
        assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
        ends[limit] = [shard.stop for shard in shards]
        sizes = [payloads[shard].nbytes for shard in shards if shard.stop - shard.start > 1]
        assert all(size <= limit for size in sizes)
    assert ends[10] == list(range(1, 11))
    assert ends[2**20] == [10]
    assert 10 > len(ends[200]) > 1


# --------------------------------------------------------------------------- what is measured


def test_an_image_is_measured_once_however_many_attacks_look_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []

    @remembered
    def brightness(image: np.ndarray) -> float:
        measured.append(image)
        return float(image.mean())

    images = digits()[:3]
    for image in (*images, *images, images[0].copy()):
        assert brightness(image) == image.mean()
    assert len(measured) == 3
    assert brightness(images[0].reshape(1, 4, 16)) == images[0].mean()
    assert len(measured) == 4, "an image of another shape is another image"
    monkeypatch.setattr(base, "REMEMBERED", 4)
    assert brightness(digits()[3]) == digits()[3].mean()
    assert brightness(images[0]) == images[0].mean()
    assert len(measured) == 6, "of many images, not all are remembered"


def test_the_size_of_an_image_is_that_of_its_own_file() -> None:
    sizes = {png_bytes(image) for image in digits()[:20]}
    assert len(sizes) > 1
    assert {png_bytes(image) for image in digits()[:20]} == sizes
