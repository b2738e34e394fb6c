"""Perturbations of images: each equals its definition, and batch mates change none."""

from __future__ import annotations

import colorsys
import io
import math
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from raymia.perturbations.kinds import COLORED, DEFAULT_STRENGTHS, check_perturbation, perturb
from raymia.spec.images import Perturbation
from raymia.util.draws import stream_key, uniforms
from raymia.util.errors import InputError

KINDS = get_args(Perturbation)


@pytest.fixture(scope="module")
def photos():
    """Parts of two photographs, float32 [6, 3, 24, 32], in whole 255ths."""
    parts = []
    for name in ("china.jpg", "flower.jpg"):
        small = Image.fromarray(load_sample_image(name)).resize((160, 107), Image.Resampling.BOX)
        whole = np.asarray(small)
        parts += [whole[20 * i : 20 * i + 24, 40 * i : 40 * i + 32] for i in range(1, 4)]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def small(photos):
    return photos[..., 4:20, 8:24].contiguous()


def keys(count, seed=0):
    return torch.tensor([stream_key(seed, "perturb", i) for i in range(count)])


def done(images, kind, strength):
    return perturb(images, kind, strength, keys(len(images)))


def planes(images):
    """Each channel as a Pillow image of floats, with its place."""
    for i, image in enumerate(images):
        for c, plane in enumerate(image):
            yield (i, c), Image.fromarray(plane.numpy())


def assert_near(found, expected, bound):
    assert np.abs(np.asarray(found) - np.asarray(expected)).max() < bound


def test_every_perturbation_of_the_audit_file_has_ten_strengths():
    assert set(DEFAULT_STRENGTHS) == set(KINDS)
    for kind, strengths in DEFAULT_STRENGTHS.items():
        assert len(set(strengths)) == 10
        check_perturbation(kind, strengths, 3, "neighbors")


def test_default_crops_are_those_of_the_released_code():
    assert DEFAULT_STRENGTHS["crop"] == pytest.approx(np.linspace(0.95, 0.7, 10), abs=1e-4)


# ---------------------------------------------------------------- what each of them is


@pytest.mark.parametrize("share", [0.95, 0.8111, 0.5])
def test_crop_is_the_center_scaled_back(photos, share):
    found = done(photos, "crop", share)
    for place, plane in planes(photos):
        width, height = plane.size
        edges = (1 - share) / 2
        box = (width * edges, height * edges, width * (1 - edges), height * (1 - edges))
        assert_near(found[place], plane.resize(plane.size, Image.Resampling.BILINEAR, box), 1e-5)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
def test_downsampling_to_whole_pixels_is_pillows(photos, share):
    found = done(photos, "downsampling", share)
    for place, plane in planes(photos):
        less = (round(plane.width * share), round(plane.height * share))
        bilinear = Image.Resampling.BILINEAR
        assert_near(found[place], plane.resize(less, bilinear).resize(plane.size, bilinear), 1e-5)


def test_downsampling_between_whole_pixels_keeps_what_is_constant_and_the_middle(photos):
    flat = torch.full_like(photos, 0.3)
    assert_near(done(flat, "downsampling", 0.2083), flat, 1e-6)
    mirrored = done(photos.flip(-1), "downsampling", 0.2083).flip(-1)
    assert_near(mirrored, done(photos, "downsampling", 0.2083), 1e-5)


@pytest.mark.parametrize("factor", [0.3, 1.8])
def test_factors_scale_brightness_contrast_and_saturation(photos, factor):
    luma = (photos * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    mean = luma.mean(dim=(1, 2, 3), keepdim=True)
    expected = {
        "brightness": factor * photos,
        "contrast": mean + factor * (photos - mean),
        "saturation": luma + factor * (photos - luma),
    }
    for kind, values in expected.items():
        assert_near(done(photos, kind, factor), values.clamp(0, 1), 1e-5)


@pytest.mark.parametrize("turn", [0.1, -0.25, 0.5])
def test_hue_is_turned_in_hsv(small, turn):
    found = done(small[:2], "hue", turn)
    for i, row, column in np.ndindex(2, 16, 16):
        h, s, v = colorsys.rgb_to_hsv(*small[i, :, row, column].tolist())
        expected = colorsys.hsv_to_rgb((h + turn) % 1, s, v)
        assert_near(found[i, :, row, column], expected, 1e-4)


@pytest.mark.parametrize("degrees", [9, 45, -30])
def test_rotation_is_counterclockwise_around_the_center_and_black_outside(photos, degrees):
    found = done(photos, "rotation", degrees)
    _, _, height, width = photos.shape
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    source = [sin * x + cos * y + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2]
    for i, c in np.ndindex(len(photos), 3):
        expected = ndimage.map_coordinates(
            photos[i, c].double().numpy(), source, order=1, mode="grid-constant"
        )
        assert_near(found[i, c], expected, 1e-4)


def test_quarter_turn_of_a_square_loses_nothing(small):
    assert_near(done(small, "rotation", 90), torch.rot90(small, 1, (-2, -1)), 1e-4)


def test_perspective_takes_the_corners_where_the_key_says(small):
    """A homography sends the corners to the corners: what is there then, was in the corners."""
    bright = torch.zeros_like(small)
    bright[..., 0, 0] = 1
    strength, side = 0.5, 16
    inward = uniforms(keys(6), 0, 8)[:, :2].numpy() * strength * (side - 1) / 2
    found = done(bright, "perspective", strength).double().numpy()
    for i in range(6):
        weights = found[i, 0] / found[i, 0].sum()
        y, x = (weights * np.mgrid[:side, :side]).sum(axis=(1, 2))
        assert abs(x - inward[i, 0]) < 0.7
        assert abs(y - inward[i, 1]) < 0.7


def test_perspective_agrees_with_pillow_where_the_source_is_inside(photos):
    strength = 0.4
    _, _, height, width = photos.shape
    found = done(photos, "perspective", strength)
    offsets = uniforms(keys(len(photos)), 0, 8).numpy().reshape(-1, 4, 2)
    full = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], float)
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    for i in range(len(photos)):
        moved = full + strength * offsets[i] * signs * np.array([width - 1, height - 1]) / 2
        rows, right = [], []
        for (x, y), (u, v) in zip(moved, full, strict=True):  # from the result to its source
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            right += [u, v]
        a, b, c, d, e, f, g, h = np.linalg.solve(np.array(rows), np.array(right))
        y, x = np.mgrid[:height, :width].astype(float)
        w = g * x + h * y + 1
        source = [(d * x + e * y + f) / w, (a * x + b * y + c) / w]
        expected = ndimage.map_coordinates(
            photos[i, 1].double().numpy(), source, order=1, mode="grid-constant"
        )
        assert_near(found[i, 1], expected, 1e-3)


def test_perspective_is_a_function_of_the_key(small):
    same = small[:1].expand(4, -1, -1, -1)
    twice = torch.cat([keys(2), keys(2)])
    found = perturb(same, "perspective", 0.5, twice)
    assert torch.equal(found[:2], found[2:])
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize("sigma", [0.5, 2.75])
def test_blur_is_a_gaussian(photos, sigma):
    radius = math.ceil(4 * sigma)
    expected = ndimage.gaussian_filter(
        photos.double().numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, radius, radius)
    )
    assert_near(done(photos, "blur", sigma), expected, 1e-4)


def through_pillow(image, quality):
    levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer), dtype=np.float32)
    return torch.from_numpy(read.reshape(levels.shape)).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [95, 75, 50, 25, 5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 32), (21, 29)])
def test_jpeg_is_what_pillow_writes_and_reads(photos, quality, channels, size):
    """libjpeg computes in integers, which moves a level by one, and a coefficient now and then."""
    images = photos[:, :channels, : size[0], : size[1]].contiguous()
    found = done(images, "jpeg", quality) * 255
    expected = torch.stack([through_pillow(image, quality) for image in images])
    assert (found - expected).abs().mean() < 0.6
    assert (images * 255 - expected).abs().mean() > 1


# -------------------------------------------------------------- what is asked of all


@pytest.mark.parametrize("kind", KINDS)
def test_batch_mates_change_nothing(photos, kind):
    for strength in (DEFAULT_STRENGTHS[kind][2], DEFAULT_STRENGTHS[kind][8]):
        together = done(photos, kind, strength)
        for i in range(len(photos)):
            alone = perturb(photos[i : i + 1], kind, strength, keys(len(photos))[i : i + 1])
            assert (together[i] - alone[0]).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_shape_type_and_range_are_kept_and_the_input_is_not_written_to(photos, kind):
    before = photos.clone()
    for strength in DEFAULT_STRENGTHS[kind]:
        found = done(photos, kind, strength)
        assert found.shape == photos.shape
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.isfinite(found).all()
    assert torch.equal(photos, before)


@pytest.mark.parametrize("kind", KINDS)
def test_default_neighbors_of_a_small_image_are_all_different(small, kind):
    """Of one that is not white already, which no brightness changes."""
    mild = 0.15 + 0.3 * small
    made = [mild, *(done(mild, kind, s) for s in DEFAULT_STRENGTHS[kind])]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert ((one - other).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_effect_grows_with_the_strength(photos, kind):
    """On images whose values are clipped nowhere, up to a factor of two."""
    mild = 0.15 + 0.3 * photos
    effects = [
        float((done(mild, kind, strength) - mild).square().mean())
        for strength in DEFAULT_STRENGTHS[kind]
    ]
    assert effects[0] > 0
    if kind in ("rotation", "hue"):  # circles: from a quarter of the way on, they need not grow
        effects = effects[:5]
    assert effects == sorted(effects)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - COLORED))
def test_grey_images_have_neighbors(photos, kind):
    grey = photos[:, :1].contiguous()
    check_perturbation(kind, DEFAULT_STRENGTHS[kind], 1, "neighbors")
    for strength in DEFAULT_STRENGTHS[kind]:
        assert (done(grey, kind, strength) - grey).abs().max() > 1e-3


def test_unknown_perturbation_is_an_error(small):
    with pytest.raises(ValueError, match="no perturbation 'melt'"):
        done(small, "melt", 0.5)


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", sorted(COLORED))
def test_color_of_grey_images_is_refused(kind):
    with pytest.raises(InputError, match=rf"^neighbors: {kind} needs images of three channels"):
        check_perturbation(kind, DEFAULT_STRENGTHS[kind], 1, "neighbors")


@pytest.mark.parametrize(
    ("kind", "strength"),
    [
        ("crop", 1.2), ("crop", 0.0), ("brightness", -0.1), ("hue", 0.6), ("rotation", 270),
        ("perspective", 0.7), ("downsampling", 2.0), ("jpeg", 0), ("jpeg", 101), ("blur", 0.0),
        ("blur", math.nan), ("crop", math.inf),
    ],
)  # fmt: skip
def test_strength_out_of_range_is_refused_with_the_range(kind, strength):
    with pytest.raises(InputError, match=rf"strength of {kind} is .*, from .* to .*, but got"):
        check_perturbation(kind, [strength], 3, "neighbors.strengths")


@pytest.mark.parametrize(
    ("kind", "strength"),
    [("crop", 1), ("contrast", 1), ("hue", 0), ("rotation", 0), ("perspective", 0)],
)
def test_strength_that_changes_nothing_is_refused(kind, strength):
    with pytest.raises(InputError, match=r"is the image itself.*leave this strength out"):
        check_perturbation(kind, [0.5, strength], 3, "neighbors.strengths")


def test_quality_is_whole_and_all_problems_are_named_together():
    with pytest.raises(InputError) as refused:
        check_perturbation("jpeg", [50, 70.5, 200], 2, "neighbors.strengths")
    channels, fraction, range_ = refused.value.problems
    assert "one or three channels, and these have 2" in channels
    assert "a whole number, but got 70.5" in fraction
    assert "from 1 to 100, but got 200" in range_
