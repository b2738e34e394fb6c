"""ImageGPT: the likelihood of an image, pixel by pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from edited import edit, reweigh

from raymia.models.image_source import resolve_image_model
from raymia.models.pixels.model import load_pixel_model
from raymia.questions.base import Item
from raymia.questions.images import PixelQuestion
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

PALETTE = np.random.default_rng(0).uniform(-1, 1, (16, 3)).round(3)


def save(folder):
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    torch.manual_seed(0)
    config = ImageGPTConfig(
        vocab_size=17, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5
    )
    model = ImageGPTForCausalImageModeling(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": PALETTE.tolist()}))
    return model


def load(folder, batch_images=4):
    checkpoint = resolve_image_model(ModelSpec(model=str(folder)), "targets[0]", on_gpu=False)
    assert (checkpoint.family, checkpoint.shape) == ("pixels", (3, 4, 4))
    return load_pixel_model(checkpoint, batch_images=batch_images)


def test_the_loss_is_that_of_each_pixel_given_those_before(tmp_path):
    model = save(tmp_path)
    images = torch.rand(3, 3, 4, 4)
    found = load(tmp_path).loss(images)
    for image, loss in zip(images, found, strict=True):
        colors = []
        for row in range(4):
            for column in range(4):
                pixel = image[:, row, column].numpy() * 2 - 1
                colors.append(int(np.argmin(((PALETTE - pixel) ** 2).sum(1))))
        total = 0.0
        for place, color in enumerate(colors):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[16, *colors[:place]]])).logits[0, -1]
            total -= float(logits.log_softmax(-1)[color])
        assert float(loss) == pytest.approx(total / 16, rel=1e-4)


def test_an_answer_does_not_depend_on_batches(tmp_path):
    save(tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, 4, 4), np.uint8)
    items = [
        Item(f"r{i}", 0, {"pixels": p.tobytes(), "caption": None}) for i, p in enumerate(pixels)
    ]
    probe = PixelQuestion(seed=0, neighborhood=None)
    one, other = (probe.ask(load(tmp_path, n), items)["loss"].to_pylist() for n in (1, 4))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_model_without_its_palette_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(InputError, match="no clusters"):
        load(tmp_path)


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    save(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n_layer": 2}))
    with pytest.raises(InputError, match=r"its weights lack \d+ of the tensors .*h\.1\."):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_layer": 2}, "of the tensors that its config.json asks for"),
        ({"n_embd": 32}, "of its tensors have other shapes"),
        ({"n_inner": 8}, "of its tensors have other shapes"),
        ({"n_head": 5}, "no ImageGPTForCausalImageModeling can be built"),
    ],
)
def test_weights_of_another_model_than_the_config_describes_are_refused_before_loading(
    tmp_path, changes, said
):
    save(tmp_path)
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(InputError) as caught:
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0].model", on_gpu=False)
    assert said in str(caught.value)


def test_a_lora_among_the_weights_is_refused_before_loading(tmp_path):
    save(tmp_path)
    reweigh(tmp_path / "model.safetensors", lambda t: t.update({"lora_A.weight": torch.ones(2, 2)}))
    with pytest.raises(InputError, match=r"hold 1 tensors for which the model .* has no place"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0].model", on_gpu=False)


def test_what_it_takes_in_memory_is_known_before_loading(tmp_path):
    numbers = sum(weight.numel() for weight in save(tmp_path).parameters())
    there = resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)
    few, many = (there.loader(PoolSpec(batch_images=n)).memory(Once()) for n in (2, 20))
    assert few.weights == many.weights == 4 * numbers
    assert many.working == 10 * few.working > 0
