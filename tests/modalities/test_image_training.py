"""How targets of images were trained: what records are prepared and asked with, what is assumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from small_families import save_family
from small_image_models import save_model, save_pipeline
from small_images import encoded, picture, save

from raymia.modalities.images.generation import choose_captions
from raymia.modalities.images.prior import WHAT
from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.model import DenoiserFamily, load_denoiser
from raymia.models.denoisers.query import Told
from raymia.models.image_source import resolve_image_model
from raymia.prepare.denoiser_files import load_trainable
from raymia.questions.asking.images import captions_of
from raymia.questions.base import Item
from raymia.records.images import TURNED, enlarged, read_image_records
from raymia.records.pixels import Preparation, to_pixels
from raymia.spec import ImageRecordsSpec, ModelSpec, PoolSpec, SelfGeneratedReference
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

ALL_SAID = {
    "crop": "center", "interpolation": "bilinear", "flip": False, "caption_dropout": 0,
    "timesteps": "uniform", "noise_offset": 0, "snr_gamma": 0, "prior_preservation": [],
    "prediction": "epsilon", "zero_terminal_snr": False, "clip_skip": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("stable", "ddpm"):
        save_pipeline(kind, folder / kind)
    return folder


def audit(folder, model, training=None, *, size=(16, 16), more="", records=""):
    """An audit file on two members and two others, each with a caption beside it."""
    mode = "L" if model.name == "ddpm" else "RGB"
    for number, name in enumerate(("members/0", "members/1", "others/2", "others/3")):
        save(folder / f"{name}.png", picture(number, size, mode))
        (folder / f"{name}.txt").write_text("a cat on a mat")
    said = "" if training is None else f"training: {training}\n"
    (folder / "audit.yaml").write_text(
        f"records: {{kind: image, members: members, non_members: others{records}}}\n"
        f"targets: [{{name: tuned, model: '{model}'}}]\n"
        f"references: {{base: {{model: '{model}'}}}}\n{said}{more}"
    )
    return folder / "audit.yaml"


def resolved(*args, **kwargs):
    return resolve_inputs(load_spec(audit(*args, **kwargs)))


def problems(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        resolved(*args, **kwargs)
    return caught.value.problems


def bare(model, target="target"):
    return resolve_image_model(ModelSpec(model=str(model)), target, on_gpu=False)


def asked_with(inputs, checkpoint):
    """The captions that a model is asked with about the records."""
    model = load_denoiser(checkpoint, batch_images=4)
    items = [Item(r["record_id"], 0, r["payload"]) for r in inputs.payloads.to_pylist()]
    given = captions_of(model, items)
    images = torch.rand(len(items), *model.latent_shape)
    return given, model.predict_noise(images, torch.full((len(items),), 100), given), images, model


# ----------------------------------------------------------------------------- captions


def test_keys_are_those_of_before_where_nothing_is_said_that_changes_the_question(models, tmp_path):
    captions = ", caption_column: txt"
    plain = resolved(tmp_path, models / "stable", records=captions)
    told = resolved(
        tmp_path, models / "stable",
        {"flip": "true", "caption_dropout": 0.1, "timesteps": "logit_normal", "snr_gamma": 5,
         "noise_offset": 0.1, "resolution": 16}, records=captions,
    )  # fmt: skip
    assert plain.targets["tuned"].fingerprint == bare(models / "stable").fingerprint
    for kind in ("targets", "references"):
        before, after = getattr(plain, kind), getattr(told, kind)
        assert [m.fingerprint for m in before.values()] == [m.fingerprint for m in after.values()]
    assert plain.records.ids == told.records.ids
    assert (plain.assumed, plain.noted) == ((), ())


def test_one_caption_for_all_takes_the_place_of_those_of_the_records(models, tmp_path):
    inputs = resolved(
        tmp_path, models / "stable", {"instance_prompt": "a dog"}, records=", caption_column: txt"
    )
    target, reference = inputs.targets["tuned"], inputs.references["base"]
    assert target.fingerprint != bare(models / "stable").fingerprint
    assert reference.fingerprint == target.fingerprint
    captions, found, images, _ = asked_with(inputs, target)
    assert captions == ["a dog"] * 4
    plain = load_denoiser(bare(models / "stable"), batch_images=4)
    for caption, is_same in (("a dog", True), ("a cat on a mat", False)):
        other = plain.predict_noise(images, torch.full((4,), 100), [caption] * 4)
        assert torch.allclose(found, other, atol=1e-6) is is_same
    assert inputs.noted[0] == (
        "training: models are asked about records with the caption 'a dog', and not with the "
        "captions that they have"
    )


def test_another_prompt_is_another_key_and_references_are_asked_as_each_target(models, tmp_path):
    path = audit(tmp_path, models / "stable", records=", caption_column: txt")
    two = [
        f"{{name: {name}, model: '{models / 'stable'}', training: {{instance_prompt: a {name}}}}}"
        for name in ("cat", "dog")
    ]
    written = path.read_text().splitlines()
    path.write_text("\n".join([written[0], f"targets: [{', '.join(two)}]", *written[2:]]) + "\n")
    inputs = resolve_inputs(load_spec(path))
    cat, dog = inputs.targets.values()
    assert cat.fingerprint != dog.fingerprint
    asked = [inputs.modality.reference_for(inputs, "base", name) for name in ("cat", "dog")]
    assert [model.fingerprint for model in asked] == [cat.fingerprint, dog.fingerprint]


def test_models_on_one_base_are_each_asked_with_their_own_caption(models):
    plain = bare(models / "stable")
    prompts = ("a", "a cat on a mat")
    family = DenoiserFamily([as_trained(plain, p, plain.query.size) for p in prompts], [4, 4])
    noisy, times = torch.randn(2, *plain.latent_shape), torch.tensor([50, 300])
    found = [family.use(number).predict_noise(noisy, times) for number in (0, 1)]
    alone = load_denoiser(plain, batch_images=4)
    for prompt, answer in zip(prompts, found, strict=True):
        torch.testing.assert_close(answer, alone.predict_noise(noisy, times, [prompt] * 2))
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_captions_that_were_all_dropped_are_not_asked_with(models, tmp_path):
    inputs = resolved(
        tmp_path, models / "stable", {"caption_dropout": 1}, records=", caption_column: txt"
    )
    captions, found, images, _ = asked_with(inputs, inputs.targets["tuned"])
    plain = load_denoiser(bare(models / "stable"), batch_images=4)
    assert captions == [""] * 4
    assert torch.allclose(found, plain.predict_noise(images, torch.full((4,), 100)), atol=1e-6)


def test_a_model_without_text_refuses_what_is_said_of_captions(models, tmp_path):
    for key, value in (("instance_prompt", "a cat"), ("caption_dropout", 0.5)):
        (said,) = problems(tmp_path, models / "ddpm", {key: value})
        assert said == f"training.{key}: tuned is not conditioned on text; leave it out"


def test_clid_is_run_where_one_caption_is_of_all(models, tmp_path):
    labels = [
        {one.label for one in resolved(tmp_path, models / "stable", said).attacks}
        for said in (None, {"instance_prompt": "a dog"})
    ]
    assert "clid" not in labels[0]
    assert "clid" in labels[1]


# ---------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", [(40, 23), (23, 40), (16, 16), (10, 50)])
def test_a_crop_is_that_of_the_trainers(size):
    """Resize of the shorter side, then CenterCrop, as torchvision's source has them."""
    image = picture(1, size)
    short, long = min(size), max(size)
    new = (16, int(16 * long / short)) if size[0] <= size[1] else (int(16 * long / short), 16)
    scaled = image.resize(new, Image.Resampling.BICUBIC) if new != size else image
    top, left = int(round((new[1] - 16) / 2.0)), int(round((new[0] - 16) / 2.0))  # noqa: RUF046
    expected = np.asarray(scaled)[top : top + 16, left : left + 16].transpose(2, 0, 1).tobytes()
    how = Preparation("scale_and_cut", "bicubic")
    assert to_pixels(encoded(image), (3, 16, 16), how).pixels == expected


def test_records_are_prepared_as_in_training(models, tmp_path):
    inputs = resolved(
        tmp_path, models / "stable", {"crop": "center", "interpolation": "lanczos"}, size=(40, 23)
    )
    given = ImageRecordsSpec(kind="image", members=f"{tmp_path}/members")
    how = Preparation("scale_and_cut", "lanczos")
    alone = read_image_records(given, (3, 16, 16), prepared=how)
    assert inputs.records.ids[:2] == alone.ids
    stretched = resolved(tmp_path, models / "stable", {"crop": "none"}, size=(40, 23))
    by_hand = resolved(tmp_path, models / "stable", records=", fit: stretch", size=(40, 23))
    assert stretched.records.ids == by_hand.records.ids != inputs.records.ids


def test_a_model_is_asked_at_the_resolution_of_its_training(models, tmp_path):
    inputs = resolved(
        tmp_path, models / "stable", {"resolution": 32, "crop": "center"}, size=(32, 40)
    )
    target = inputs.targets["tuned"]
    assert (target.shape, target.latent_shape) == ((3, 32, 32), (4, 16, 16))
    assert target.fingerprint != bare(models / "stable").fingerprint
    assert inputs.references["base"].fingerprint == target.fingerprint
    _, found, latents, _ = asked_with(inputs, target)
    saved = save_pipeline("stable", tmp_path / "again").pipeline
    with torch.inference_mode():
        states = saved.encode_prompt([""] * 4, "cpu", 1, do_classifier_free_guidance=False)[0]
        plainly = saved.unet(latents, torch.full((4,), 100), encoder_hidden_states=states).sample
    torch.testing.assert_close(found, plainly, atol=1e-4, rtol=1e-4)
    (said,) = problems(tmp_path, models / "stable", {"resolution": 18})
    assert "takes images whose height and width are multiples of 4, but got 18" in said


def test_images_of_buckets_are_asked_about_as_squares_and_that_is_said(models, tmp_path):
    bucket, center = (
        resolved(tmp_path, models / "stable", {"crop": crop}, size=(40, 23))
        for crop in ("bucket", "center")
    )
    assert bucket.records.ids == center.records.ids
    assert "`crop`" not in " ".join(bucket.assumed)
    said = "training: images were trained in buckets of their own aspect, and are asked about as sq"
    assert [line.startswith(said) for line in bucket.noted] == [True]
    assert not center.noted


def test_images_smaller_than_the_crop_are_counted_and_named(models, tmp_path):
    inputs = resolved(tmp_path, models / "stable", {"crop": "random"}, size=(12, 20))
    (line,) = [line for line in inputs.noted if line.startswith("records: ")]
    assert line.startswith(f"records: 4 {enlarged((3, 16, 16))}; came: {tmp_path}/members/0.png, ")
    assert any("cut at random" in line for line in inputs.noted)


def test_records_are_prepared_in_one_way(models, tmp_path):
    (said,) = problems(tmp_path, models / "stable", {"crop": "center"}, records=", fit: pad")
    assert said == "training.crop: give either this or records.fit, which is pad"
    (said,) = problems(tmp_path, models / "stable", {"interpolation": "bicubic"})
    assert said == "training.interpolation: it is of `crop`; say how images were cut"


# ------------------------------------------------------------------- assumed, and said


OF_DENOISERS = [
    "images were of the models' size; say `crop`",
    "no image was mirrored; say `flip`",
    "timesteps were drawn uniformly; say `timesteps`",
    "timesteps were weighted alike; say `snr_gamma`",
    "noise had no offset; say `noise_offset`",
    "a network predicts epsilon, as its scheduler file says; say `prediction` where",
    "the noise schedule is plain, as a network's scheduler file says; say `zero_terminal_snr`",
]
OF_CAPTIONED_MODELS = [
    "no caption was dropped; say `caption_dropout`",
    "no class images were trained on; name them as `prior_preservation`",
    "captions were read by the last layer of the text encoder; say `clip_skip` where it was one",
]
EMPTY = "tuned was trained with empty captions; say `instance_prompt`, or name the `caption_column`"


def assert_assumed(inputs, *parts):
    found = sorted(inputs.assumed)
    expected = sorted(f"training: it is assumed that {part}" for part in parts)
    assert len(found) == len(expected), found
    for line, part in zip(found, expected, strict=True):
        assert line.startswith(part)


def test_what_is_not_said_is_assumed_aloud(models, tmp_path):
    model, captions = models / "stable", ", caption_column: txt"
    inputs = resolved(tmp_path, model, {"resolution": 16}, records=captions)
    assert_assumed(inputs, *OF_DENOISERS, *OF_CAPTIONED_MODELS)
    scaled = "images were scaled by bilinear interpolation; say `interpolation`"
    inputs = resolved(tmp_path, model, {"crop": "center"}, records=captions)
    assert_assumed(inputs, scaled, *OF_DENOISERS[1:], *OF_CAPTIONED_MODELS)
    assert_assumed(resolved(tmp_path, models / "ddpm", {"resolution": 16}), *OF_DENOISERS)
    assert_assumed(resolved(tmp_path, models / "ddpm"))
    assert_assumed(resolved(tmp_path, model, ALL_SAID, records=captions))


@pytest.mark.parametrize("key", ALL_SAID)
def test_what_is_left_out_is_one_line_of_what_is_assumed(models, tmp_path, key):
    said = {name: value for name, value in ALL_SAID.items() if name != key}
    if key == "crop":
        del said["interpolation"]  # which is of crop
    inputs = resolved(tmp_path, models / "stable", said, records=", caption_column: txt")
    (line,) = inputs.assumed
    assert f"`{key}`" in line


def test_a_captioned_model_without_captions_is_said_to_be_asked_with_empty_ones(models, tmp_path):
    model = models / "stable"
    assert_assumed(resolved(tmp_path, model), EMPTY)
    assert_assumed(resolved(tmp_path, model, ALL_SAID), EMPTY)
    assert_assumed(resolved(tmp_path, model, ALL_SAID | {"caption_dropout": 1}))
    assert_assumed(resolved(tmp_path, model, ALL_SAID | {"instance_prompt": "a dog"}))
    assert_assumed(resolved(tmp_path, model, records=", caption_column: txt"))


def test_a_flow_has_no_weights_by_its_signal(tmp_path):
    save_family("sd3", tmp_path / "model")
    of_ddpm = ("snr_gamma", "prediction", "zero_terminal_snr", "clip_skip")
    said = {key: value for key, value in ALL_SAID.items() if key not in of_ddpm}
    said["max_caption_tokens"] = 77
    assert_assumed(resolved(tmp_path, tmp_path / "model", said, records=", caption_column: txt"))


READ = "tuned read {} tokens of each caption, with padding; say `max_caption_tokens` where its "
GUIDED = "tuned was told a guidance of 1 with each image; say `guidance` where its training told it"


@pytest.mark.parametrize(
    ("kind", "lines", "key", "value", "usual"),
    [
        ("sd3", [READ.format(256)], "max_caption_tokens", 77, 256),
        ("sd3_without_t5", [READ.format(256)], "max_caption_tokens", 77, 256),
        ("flux", [READ.format(512), GUIDED], "max_caption_tokens", 77, 512),
        ("flux", [READ.format(512), GUIDED], "guidance", 3.5, 1),
        ("aura_flow", [READ.format(256)], "max_caption_tokens", 77, 256),
        ("sana", [], "max_caption_tokens", 77, 300),
        ("pixart", [], "max_caption_tokens", 77, 120),
    ],
)
def test_what_a_training_told_otherwise_than_the_pipeline_is_told_and_keyed(
    kind, lines, key, value, usual, tmp_path
):
    save_family(kind, tmp_path / "model")
    captions = ", caption_column: txt"
    plain = resolved(tmp_path, tmp_path / "model", records=captions)
    assert_assumed(plain, *lines)
    target = plain.targets["tuned"]
    assert target.fingerprint == bare(tmp_path / "model").fingerprint
    as_usual = resolved(tmp_path, tmp_path / "model", {key: usual}, records=captions)
    assert as_usual.targets["tuned"].fingerprint == target.fingerprint
    told = resolved(tmp_path, tmp_path / "model", {key: value}, records=captions)
    other = told.targets["tuned"]
    assert not [line for line in told.assumed if f"`{key}`" in line]
    assert other.fingerprint != target.fingerprint
    assert told.references["base"].fingerprint == other.fingerprint
    assert other.in_folder(tmp_path / "model").fingerprint == other.fingerprint
    sharing = [one.loader(PoolSpec()).sharing for one in (target, other)]
    assert sharing[0].joined(sharing[1]) is None
    answers = [asked_with(inputs, inputs.targets["tuned"])[1::2] for inputs in (plain, told)]
    (before, model), (after, told_model) = answers
    if key == "max_caption_tokens":
        lengths = [one.embed(["a cat"])["encoder_hidden_states"].shape[1] for one in
                   (model, told_model)]  # fmt: skip
        assert lengths[0] - lengths[1] == usual - value
    else:
        assert (before - after).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("kind", "training", "said"),
    [
        ("sdxl", {"max_caption_tokens": 77}, "training.max_caption_tokens: tuned has no T5 or "),
        ("sd3", {"guidance": 3.5}, "training.guidance: tuned is told no guidance; leave it out"),
        ("flux_schnell", {"guidance": 3.5}, "training.guidance: tuned is told no guidance"),
        ("sdxl", {"clip_skip": 2}, "training.clip_skip: it is of Stable Diffusion 1 and 2, and t"),
        ("sd3", {"prediction": "epsilon"}, "training.prediction: tuned was trained by flow match"),
        ("sd3", {"zero_terminal_snr": "false"}, "training.zero_terminal_snr: tuned was trained by"),
    ],
)
def test_what_a_model_is_not_told_is_refused(kind, training, said, tmp_path):
    save_family(kind, tmp_path / "model")
    (problem,) = problems(tmp_path, tmp_path / "model", training)
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("said", "in_file"),
    [
        ({"prediction": "v_prediction"}, {"prediction_type": "v_prediction"}),
        ({"prediction": "sample"}, {"prediction_type": "sample"}),
        ({"zero_terminal_snr": True}, {"rescale_betas_zero_snr": True}),
    ],
)
def test_a_network_is_read_as_it_was_trained_though_its_scheduler_file_says_otherwise(
    said, in_file, tmp_path
):
    """As after kohya's --v_parameterization, or diffusers' --prediction_type, which leave the file
    of the base as it was."""
    for kind, change in (("true", in_file), ("untrue", {})):
        save_pipeline("stable", tmp_path / kind)
        DDIMScheduler(**change).save_pretrained(tmp_path / kind / "scheduler")
    untrue = bare(tmp_path / "untrue")
    told = as_trained(untrue, None, untrue.query.size, Told(**said))
    assert told.fingerprint != untrue.fingerprint
    latents, noise = torch.rand(2, 2, *untrue.latent_shape).unbind(0)
    times = torch.tensor([100, 999])
    found = []
    for checkpoint in (bare(tmp_path / "true"), told, untrue):
        model = load_denoiser(checkpoint, batch_images=2)
        noisy = model.path.add_noise(latents, noise, times)
        found.append(torch.cat([noisy, model.predict_noise(noisy, times, ["a", "b"])]))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
    assert (found[2] - found[0]).abs().max() > 2e-3
    # What is said as the file has it changes no key, and can be said the other way as well.
    true = bare(tmp_path / "true")
    assert as_trained(true, None, true.query.size, Told(**said)).fingerprint == true.fingerprint
    plainly = {"zero_terminal_snr": False, "prediction": "epsilon"}
    back = as_trained(true, None, true.query.size, Told(**plainly))
    kept = [load_denoiser(one, batch_images=1).path for one in (back, untrue)]
    torch.testing.assert_close(kept[0].alphas_cumprod, kept[1].alphas_cumprod)
    assert kept[0].prediction == kept[1].prediction


def test_a_layer_that_is_skipped_in_training_is_skipped(models, tmp_path):
    model, captions = models / "stable", ", caption_column: txt"
    inputs = resolved(tmp_path, model, {"clip_skip": 2}, records=captions)
    target = inputs.targets["tuned"]
    assert target.fingerprint != bare(model).fingerprint
    assert inputs.references["base"].fingerprint == target.fingerprint
    _, found, latents, _ = asked_with(inputs, target)
    saved = save_pipeline("stable", tmp_path / "again").pipeline
    with torch.inference_mode():
        tokens = saved.tokenizer(
            ["a cat on a mat"] * 4, padding="max_length", max_length=12, return_tensors="pt"
        ).input_ids
        # As kohya's get_hidden_states; the encoder has one layer, before which are embeddings.
        encoder = getattr(saved.text_encoder, "text_model", saved.text_encoder)
        states = encoder.final_layer_norm(encoder.embeddings(tokens))
        plainly = saved.unet(latents, torch.full((4,), 100), encoder_hidden_states=states).sample
    torch.testing.assert_close(found, plainly, atol=1e-4, rtol=1e-4)
    _, other, latents, _ = asked_with(inputs, bare(model))
    assert (found - other).abs().max() > 1e-3
    as_usual = resolved(tmp_path, model, {"clip_skip": 1}, records=captions)
    assert as_usual.targets["tuned"].fingerprint == bare(model).fingerprint
    (said,) = problems(tmp_path, model, {"clip_skip": 3})
    assert said == (
        f"training.clip_skip: the text encoder of {model} has 1 layers, so that it should be at "
        "most 2, but got 3"
    )


def test_shadows_learned_to_predict_what_the_target_did_and_the_base_what_its_file_says(
    models, tmp_path
):
    model = models / "stable"
    path = audit(tmp_path, model, {"prediction": "v_prediction"}, records=", caption_column: txt")
    shadow = f"shadow: {{kind: shadow, model: '{model}', members: members}}"
    path.write_text(path.read_text().replace("references: {", f"references: {{{shadow}, "))
    inputs = resolve_inputs(load_spec(path))
    target, references = inputs.targets["tuned"], inputs.references
    assert target.describe().endswith("predicts v_prediction")
    assert references["shadow"].fingerprint == target.fingerprint
    assert references["base"].fingerprint == bare(model).fingerprint


def test_a_model_is_trained_with_what_it_is_told(tmp_path):
    save_family("flux", tmp_path)
    told = Told(caption_tokens=8, guidance=3.5)
    model = load_trainable(tmp_path, from_weights=True, seed=0, told=told)
    asked = as_trained(model.checkpoint, None, model.checkpoint.query.size)
    noisy, timesteps = torch.randn(1, *asked.latent_shape), torch.tensor([500])
    for checkpoint, is_same in ((model.checkpoint, True), (asked, False)):
        expected = load_denoiser(checkpoint, batch_images=1).predict(noisy, timesteps, ["a cat"])
        with torch.inference_mode():
            found = model(noisy, timesteps, ["a cat"])
        assert bool((found - expected).abs().max() < 1e-5) == is_same


def test_images_that_are_turned_by_their_exif_are_counted(models, tmp_path):
    place = audit(tmp_path, models / "stable")
    exif = Image.Exif()
    for number, orientation in enumerate((1, 6)):
        exif[0x0112] = orientation
        content = encoded(picture(number, (16, 16), "RGB"), "PNG", exif=exif)
        (tmp_path / f"members/{number}.png").write_bytes(content)
    noted = resolve_inputs(load_spec(place)).noted
    assert [line for line in noted if line.startswith("records: ")] == [
        f"records: 1 {TURNED}; came: {tmp_path}/members/1.png"
    ]


def test_what_sdxl_is_told_of_sizes_and_cuts_is_assumed(tmp_path):
    save_family("sdxl", tmp_path / "model")
    told = "tuned was told of each image that it was 16 x 16 and that nothing was cut off; it is "
    for said in (None, {key: value for key, value in ALL_SAID.items() if key != "clip_skip"}):
        inputs = resolved(tmp_path, tmp_path / "model", said, records=", caption_column: txt")
        assert_assumed(inputs, told)


def test_what_changes_the_meaning_of_scores_is_stated(models, tmp_path):
    said = {"flip": "true", "caption_dropout": 0.1, "noise_offset": 0.05, "snr_gamma": 5,
            "timesteps": "logit_normal"}  # fmt: skip
    lines = resolved(tmp_path, models / "stable", said, records=", caption_column: txt").noted
    for part in (
        "captions were dropped in 10% of the steps: models are asked with captions",
        "images were mirrored at random, and are asked about as they are",
        "noise had an offset of 0.05",
        "timesteps were drawn by logit_normal and they were weighted by min-SNR with gamma 5;",
    ):
        assert any(line.startswith(f"training: {part}") for line in lines), part


# --------------------------------------------------------------------- prior preservation


def test_no_member_is_a_class_image_whatever_its_caption(models, tmp_path):
    save(tmp_path / "class" / "own.png", picture(7, (16, 16)))
    save(tmp_path / "class" / "copied.png", picture(0, (16, 16)))
    (said,) = problems(
        tmp_path, models / "stable", {"prior_preservation": "class"},
        records=", caption_column: txt",
    )  # fmt: skip
    assert said == (
        "training.prior_preservation: 1 of these class images are among the members "
        f"({tmp_path}/class/copied.png), which the target was not trained to know; take them out "
        "of records.members"
    )


def test_class_images_are_counted_and_so_are_non_members_among_them(models, tmp_path):
    save(tmp_path / "class" / "own.png", picture(7, (16, 16)))
    save(tmp_path / "class" / "copied.png", picture(3, (16, 16)))
    inputs = resolved(tmp_path, models / "stable", {"prior_preservation": "class"})
    assert inputs.noted == (
        "training: 2 class images of prior preservation were trained on too, and 1 of the records "
        "that are no members are among them, which the target has seen; came: "
        f"{tmp_path}/class/copied.png",
    )
    assert inputs.records.count(False) == 2
    assert not any(WHAT in aside.reason for aside in inputs.records.set_aside)


def test_a_picture_that_is_a_member_with_one_caption_is_one_whatever_it_is_with_another(
    models, tmp_path
):
    save(tmp_path / "class" / "own.png", picture(7, (16, 16)))
    for place in ("class", "others"):
        save(tmp_path / place / "copied.png", picture(0, (16, 16)))
    (tmp_path / "others" / "copied.txt").write_text("a dog on a mat")
    (said,) = problems(
        tmp_path, models / "stable", {"prior_preservation": "class"},
        records=", caption_column: txt",
    )  # fmt: skip
    assert said.startswith(
        "training.prior_preservation: 1 of these class images are among the members"
    )


def test_class_images_that_cannot_be_read_are_set_aside_and_named(models, tmp_path):
    save(tmp_path / "class" / "own.png", picture(7, (16, 16)))
    save(tmp_path / "class" / "small.png", picture(8, (9, 9)))
    inputs = resolved(tmp_path, models / "stable", {"prior_preservation": "class"})
    (aside,) = inputs.records.set_aside
    assert aside.where == f"{tmp_path}/class/small.png"
    assert aside.reason.startswith(f"a {WHAT} that is not of the models' 16 x 16 pixels")


# --------------------------------------------------------------------------- the file


def test_an_unknown_key_is_told_the_keys_of_images(models, tmp_path):
    with pytest.raises(InputError) as caught:
        load_spec(audit(tmp_path, models / "stable", {"instance_promt": "a dog"}))
    (said,) = caught.value.problems
    assert "training.instance_promt: unknown key; did you mean 'instance_prompt'?" in said
    assert "template" not in said


def test_a_file_without_targets_is_told_so(models, tmp_path):
    path = audit(tmp_path, models / "stable", {"flip": "true"})
    lines = [line for line in path.read_text().splitlines() if not line.startswith("targets")]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="targets: this key is required and missing"):
        load_spec(path)


def test_texts_have_no_training_of_images(models, tmp_path):
    path = audit(tmp_path, models / "stable", {"instance_prompt": "a dog"})
    path.write_text(path.read_text().replace("kind: image", "kind: text"))
    with pytest.raises(InputError, match=r"training\.instance_prompt: unknown key"):
        load_spec(path)


def test_an_autoencoder_has_no_timesteps(tmp_path):
    save_model("autoencoder_kl", tmp_path / "vae")
    side = bare(tmp_path / "vae").shape[1]
    (said,) = problems(tmp_path, tmp_path / "vae", {"timesteps": "uniform"}, size=(side, side))
    assert said.startswith("training.timesteps: it is of diffusion models, and tuned is of the ")


def test_a_reference_that_the_target_makes_is_asked_as_the_target(models, tmp_path):
    """With the target's caption and at its size, though the folder it is saved in says neither."""
    inputs = resolved(tmp_path, models / "stable", {"instance_prompt": "a dog", "resolution": 32},
                      size=(32, 32))  # fmt: skip
    spec = SelfGeneratedReference(kind="self_generated")
    assert choose_captions(inputs.targets["tuned"], spec, ()) == ("a dog",)
    assert choose_captions(inputs.targets["tuned"], spec, ("a cat",)) == ("a cat",)
    made = inputs.targets["tuned"].in_folder(models / "stable")
    assert made.fingerprint == inputs.targets["tuned"].fingerprint
    assert made.loader(PoolSpec()).checkpoint.query.prompt == "a dog"
