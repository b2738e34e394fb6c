"""Words that textual inversion learned: read as diffusers loads them, and known to their model
alone."""

from __future__ import annotations

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_families import save_family
from small_image_models import save_pipeline
from small_loras import UNET, adapted, save_by_diffusers

from raymia.models.denoisers.long_captions import cut_captions
from raymia.models.denoisers.model import load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.models.loaders import load_together
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import InputError

CAPTIONS = ["a <toy> on a mat", "a cat", "<toy>"]
TIMESTEPS = torch.tensor([10, 200, 700])
EMBEDS = "learned_embeds.safetensors"


def learned(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save_word(place, vectors=1, width=16, word="<toy>", seed=0):
    """As diffusers' script saves it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file({word: learned(seed, vectors, width)}, place)
    return place


def resolved(base, *adapters):
    named = [
        {"path": str(one)}
        if not isinstance(one, tuple)
        else {"path": str(one[0]), "weight": one[1]}
        for one in adapters
    ]
    spec = ModelSpec(model=str(base), adapter=named or None)
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


def asked(model):
    noisy = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return model.predict_noise(noisy, TIMESTEPS, CAPTIONS)


def answered(checkpoint):
    return asked(load_denoiser(checkpoint, batch_images=4))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save_pipeline("stable", folder)
    return folder


@torch.inference_mode()
def by_diffusers(pipe):
    """What Stable Diffusion's own parts answer."""
    states, _ = pipe.encode_prompt(CAPTIONS, "cpu", 1, do_classifier_free_guidance=False)
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipe.unet(noisy, TIMESTEPS, encoder_hidden_states=states).sample


def opened(base):
    return diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_word_is_read_as_diffusers_loads_it(vectors, base, tmp_path):
    save_word(tmp_path / EMBEDS, vectors)
    pipe = opened(base)
    pipe.load_textual_inversion(str(tmp_path))
    checkpoint = resolved(base, tmp_path)
    found = answered(checkpoint)
    torch.testing.assert_close(found, by_diffusers(pipe), atol=1e-5, rtol=1e-4)
    changed = (found - answered(resolved(base))).abs().amax(dim=(1, 2, 3))
    assert changed[0] > 1e-2
    assert changed[1] < 1e-6  # it has no learned word
    assert "the learned '<toy>'" in checkpoint.describe()
    assert "its adapter is a word" in checkpoint.capabilities.lacks["generation"]


def test_a_word_without_a_name_is_that_of_its_file(base, tmp_path):
    tensor = learned(0, 2, 16)
    save_file({"emb_params": tensor}, tmp_path / "<toy>.safetensors")
    pipe = opened(base)
    pipe.load_textual_inversion({"<toy>": tensor})
    found = answered(resolved(base, tmp_path / "<toy>.safetensors"))
    torch.testing.assert_close(found, by_diffusers(pipe), atol=1e-5, rtol=1e-4)


def test_a_word_and_a_lora_are_put_on_together(base, tmp_path):
    lora = save_by_diffusers(tmp_path / "lora", adapted(opened(base).unet, UNET, seed=1))
    pipe = opened(base)
    pipe.load_lora_weights(str(lora), adapter_name="lora")
    pipe.set_adapters(["lora"], [0.5])
    pipe.load_textual_inversion(str(save_word(tmp_path / "word" / EMBEDS, 2).parent))
    checkpoint = resolved(base, (lora, 0.5), tmp_path / "word")
    torch.testing.assert_close(answered(checkpoint), by_diffusers(pipe), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("files", ["one file", "two files"])
def test_both_encoders_of_sdxl_learn_a_word_as_diffusers_loads_it(files, tmp_path):
    save_family("sdxl", tmp_path / "base")
    rows = {"clip_l": learned(1, 2, 16), "clip_g": learned(2, 2, 24)}
    if files == "one file":
        save_file(rows, tmp_path / "<toy>.safetensors")
        adapters = [tmp_path / "<toy>.safetensors"]
    else:
        adapters = [tmp_path / f"learned_embeds{end}.safetensors" for end in ("", "_2")]
        for place, tensor in zip(adapters, rows.values(), strict=True):
            save_file({"<toy>": tensor}, place)
    checkpoint = resolved(tmp_path / "base", *adapters)
    before, found = answered(resolved(tmp_path / "base")), answered(checkpoint)
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "base")
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            {"<toy>": rows[key]},
            text_encoder=getattr(pipe, f"text_encoder{end}"),
            tokenizer=getattr(pipe, f"tokenizer{end}"),
        )
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states, _, pooled, _ = pipe.encode_prompt(CAPTIONS, do_classifier_free_guidance=False)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 3)}
        expected = pipe.unet(
            noisy, TIMESTEPS, encoder_hidden_states=states, added_cond_kwargs=added
        ).sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - before).abs().max() > 1e-3


def test_a_word_is_known_to_its_model_alone(base, tmp_path):
    ways = [
        [save_word(tmp_path / "a.safetensors")],
        [],
        [save_word(tmp_path / "b.safetensors", 3, seed=1)],
        [tmp_path / "a.safetensors", save_word(tmp_path / "c.safetensors", word="mat!")],
    ]
    checkpoints = [resolved(base, *way) for way in ways]
    alone = [answered(one) for one in checkpoints]
    use = load_together([one.loader(PoolSpec()) for one in checkpoints])
    for number in (2, 0, 1, 3, 1, 2):
        torch.testing.assert_close(asked(use(number)), alone[number], atol=1e-6, rtol=1e-5)
    assert (alone[0] - alone[2]).abs().max() > 1e-3


def test_a_fingerprint_is_that_of_the_word_and_its_embeddings(base, tmp_path):
    places = [save_word(tmp_path / one / EMBEDS) for one in "ab"]
    places += [
        save_word(tmp_path / "c" / EMBEDS, word="<dog>"),
        save_word(tmp_path / "d" / EMBEDS, seed=3),
    ]
    rows = load_file(places[0])["<toy>"]
    for name in ("<one>", "<two>"):
        save_file({"emb_params": rows}, tmp_path / f"{name}.safetensors")
        places.append(tmp_path / f"{name}.safetensors")
    prints = [resolved(base, place).fingerprint for place in places] + [resolved(base).fingerprint]
    assert prints[0] == prints[1]
    assert len({*prints}) == 6


def test_captions_with_words_are_counted_with_all_their_tokens(base, tmp_path):
    checkpoint = resolved(base, save_word(tmp_path / EMBEDS, 9))
    (line,) = cut_captions({"toy": checkpoint}, ["a <toy> a"])
    assert "and are cut there; the longest has 13. " in line
    assert cut_captions({"toy": checkpoint}, ["a cat"]) == [
        "toy: no caption has the learned word '<toy>', so it changes nothing"
    ]


@pytest.mark.parametrize(
    ("tensors", "weight", "why"),
    [
        (
            {"<toy>": (1, 24)},
            1,
            "<toy> is a learned word of [1, 24], and the base's text encoders",
        ),
        ({"clip_g": (1, 16)}, 1, "clip_g is a learned word of [1, 16], and the base's text enc"),
        ({"<toy>": (0, 16)}, 1, "'<toy>' is no word that captions can have"),
        ({"cat</w>": (1, 16)}, 1, "has cat</w> already; rename the word"),
        ({"<toy>": (1, 16)}, 0.5, "learned words have no weight, and it is 0.5; leave it out"),
    ],
)
def test_a_word_that_the_base_cannot_learn_is_refused(tensors, weight, why, base, tmp_path):
    file = tmp_path / "word.safetensors"
    save_file({name: torch.ones(*shape) for name, shape in tensors.items()}, file)
    with pytest.raises(InputError) as caught:
        resolved(base, (file, weight))
    (problem,) = caught.value.problems
    assert problem.startswith(f"targets[0].adapter[0].path: {file}: ")
    assert why in problem


def test_a_word_is_learned_once(base, tmp_path):
    places = [save_word(tmp_path / f"{name}.safetensors") for name in "ab"]
    with pytest.raises(InputError, match=r"adapter\[1\].*'<toy>' is a word of another adapter"):
        resolved(base, *places)


def test_a_pickle_of_words_is_refused_unread(base, tmp_path):
    torch.save({"<toy>": torch.ones(1, 16)}, tmp_path / "learned_embeds.bin")
    for named in (tmp_path, tmp_path / "learned_embeds.bin"):
        with pytest.raises(InputError, match="unpickles no file it was given"):
            resolved(base, named)


def test_of_files_from_steps_on_the_way_the_last_is_taken(base, tmp_path):
    save_word(tmp_path / "run" / EMBEDS, 2)
    save_word(tmp_path / "run" / "learned_embeds-steps-500.safetensors", 1)
    alone = save_word(tmp_path / "alone" / EMBEDS, 2).parent
    assert resolved(base, tmp_path / "run").words[0].name == resolved(base, alone).words[0].name
    found = answered(resolved(base, tmp_path / "run"))
    torch.testing.assert_close(found, answered(resolved(base, alone)), atol=0, rtol=0)
    save_word(tmp_path / "run" / "learned_embeds_2.safetensors", 1)
    with pytest.raises(InputError, match="holds 3 files of weights"):
        resolved(base, tmp_path / "run")


def test_two_words_in_one_file_are_refused_with_what_to_do(base, tmp_path):
    save_file({"<a>": learned(0, 1, 16), "<b>": learned(1, 1, 16)}, tmp_path / "words.safetensors")
    with pytest.raises(InputError, match=r"holds 2 tensors .*<a>, <b>.* in a file of its own"):
        resolved(base, tmp_path / "words.safetensors")
