"""The self-generated reference of an adapter: a fresh one of its shape, of images of others'
captions."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_audit import console
from small_families import save_family
from small_image_audit import write_image_audit
from small_image_models import save_pipeline, save_with_classes
from small_loras import adapted, save_by_diffusers, save_by_kohya

from raymia.evidence.store import EvidenceStore
from raymia.modalities.images.generation import check_generation, choose_captions
from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.model import load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.plan.planning import plan_audit
from raymia.prepare import generate_images, train_denoiser
from raymia.prepare.image_split import parquet
from raymia.prepare.self_generated import (
    SelfGeneratedRecipe,
    generated_images,
    make_image_reference,
)
from raymia.run.audit import run_audit
from raymia.spec import ModelSpec, SelfGeneratedReference
from raymia.spec.file import load_spec
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.hashing import digest

TRAINING = {"steps": 2, "batch_size": 4, "warmup": 1, "learning_rate": 1e-2}
QUICK = {"images": 6, "sampling_steps": 2, "generation_batch": 4, "training": TRAINING}
CAPTIONS = ("a cat on a mat", "a dog")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save_pipeline("stable", folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """Of kohya's scripts, one of whose modules has another scale."""
    unet = adapted(opened(base).unet, ["to_q", "conv1"], seed=1)
    file = save_by_kohya(tmp_path_factory.mktemp("adapter") / "mine.safetensors", unet)
    tensors = load_file(file)
    name = next(name for name in tensors if "conv1" in name and name.endswith("alpha"))
    save_file({**tensors, name: torch.tensor(2.0)}, file)
    return file


@pytest.fixture(scope="module")
def target(base, adapter):
    return resolved(base, adapter)


@pytest.fixture(scope="module")
def prompted(target):
    """The target as it is asked with one caption about all images."""
    return as_trained(target, CAPTIONS[0], target.query.size)


def opened(base):
    import diffusers

    return diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)


def resolved(base, adapter=None):
    named = None if adapter is None else str(adapter)
    return resolve_image_model(ModelSpec(model=str(base), adapter=named), "t", on_gpu=False)


def recipe(target, captions=CAPTIONS, **changes):
    spec = SelfGeneratedReference(**{"kind": "self_generated", **QUICK, **changes})
    return SelfGeneratedRecipe(target, None, spec, 0, captions)


def make(made, store):
    def progress(*_):
        return None

    make_image_reference(made, store, batch_images=4, on_images=progress, on_steps=progress)


def answered(checkpoint):
    model = load_denoiser(checkpoint, batch_images=4)
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    return model.predict_noise(noisy, model.at([100, 700]), ["a cat", "dog"])


def shapes(checkpoint):
    return {(one.path, one.weights.rank, one.weights.scale) for one in checkpoint.placed}


def test_a_reference_is_trained_on_draws_from_the_model_itself_by_default():
    assert SelfGeneratedReference(kind="self_generated").guidance == 1


def test_the_reference_is_a_fresh_adapter_of_the_targets_shape_on_its_base(base, target, tmp_path):
    store, made = EvidenceStore(str(tmp_path)), recipe(target)
    make(made, store)
    reference = made.finished(store.prepared_path(made.key))
    assert reference.path == target.path
    assert shapes(reference) == shapes(target)
    assert len({scale for *_, scale in shapes(target)}) == 2
    assert reference.fingerprint != target.fingerprint
    answers = [answered(one) for one in (reference, target, resolved(base))]
    assert (answers[0] - answers[1]).abs().max() > 1e-2
    assert (answers[0] - answers[2]).abs().max() > 1e-4
    assert not (store.prepared_path(made.key) / "model_index.json").exists()
    pipeline = opened(base)
    pipeline.load_lora_weights(str(store.prepared_path(made.key)))
    assert pipeline.get_active_adapters()


def test_the_reference_of_an_adapter_is_trained_at_the_size_that_the_adapter_was(target, tmp_path):
    store, made = EvidenceStore(str(tmp_path)), recipe(as_trained(target, None, (32, 32)))
    make(made, store)
    assert generated_images(made, store).shape[1:] == (3, 32, 32)
    assert made.finished(store.prepared_path(made.key)).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["dora", "sd3"])
def test_the_reference_of_a_dora_and_of_a_flows_adapter_is_one_too(kind, base, tmp_path):
    if kind == "sd3":
        base = tmp_path / "base"
        network = save_family("sd3", base).pipeline.transformer
    else:
        network = opened(base).unet
    adapted(network, ["to_q", "to_out.0"], seed=1, use_dora=kind == "dora")
    states = get_peft_model_state_dict(network)
    start = "transformer" if kind == "sd3" else "unet"
    file = tmp_path / "mine.safetensors"
    save_file({f"{start}.{name}": value.contiguous() for name, value in states.items()}, file)
    target, store = resolved(base, file), EvidenceStore(str(tmp_path / "store"))
    made = recipe(target)
    make(made, store)
    reference = made.finished(store.prepared_path(made.key))
    assert shapes(reference) == shapes(target)
    roles = [{*one.weights.tensors} for one in reference.placed]
    assert all(("magnitude" in role) == (kind == "dora") for role in roles)
    answers = [answered(one) for one in (reference, target, resolved(base))]
    assert (answers[0] - answers[1]).abs().max() > 1e-2
    assert (answers[0] - answers[2]).abs().max() > 1e-4


def test_its_images_are_of_the_captions_in_turn(target, tmp_path):
    store, made = EvidenceStore(str(tmp_path)), recipe(target, guidance=2.0, sampler="ddpm")
    make(made, store)
    expected = generate_images.generate_images(
        load_denoiser(target, batch_images=4), range(6), seed=0, steps=2, batch=4,
        captions=CAPTIONS, guidance=2.0, sampler="ddpm", progress=lambda *_: None,
    )  # fmt: skip
    assert np.array_equal(generated_images(made, store), expected)


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_killed_training_does_not_ask_the_target_again(target, tmp_path, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe(target)
    with monkeypatch.context() as patch:
        patch.setattr(train_denoiser, "save_lora", killed)
        with pytest.raises(KeyboardInterrupt):
            make(made, store)
    assert store.prepared_facts(made.key) is None
    monkeypatch.setattr(generate_images, "generate_images", killed)
    make(made, store)
    assert store.prepared_facts(made.key)["generated"] == 6


def test_keys_hold_what_is_generated_of_and_how(target):
    plain = recipe(target)
    for other in (
        recipe(target, CAPTIONS[:1]),
        recipe(target, guidance=2.0),
        recipe(target, sampler="ddpm"),
        recipe(replace(target, fingerprint="other")),
    ):
        assert other.material_key != plain.material_key
        assert other.key != plain.key
    moved = recipe(target, prompts=["elsewhere.txt"], prompt_column="words")
    assert (moved.material_key, moved.key) == (plain.material_key, plain.key)


def test_keys_from_before_there_were_captions_and_samplers_are_the_same(target):
    parts = {"version": 1, "seed": 0, "target": target.fingerprint, "images": 6,
             "sampling_steps": 2, "generation_batch": 4}  # fmt: skip
    made = recipe(target, captions=())
    assert made.material_key == digest({"what": "self-generated images", **parts})
    assert made.key == digest(
        {"what": "self-generated reference", "base": None,
         "training": made.spec.training.model_dump(), **parts}
    )  # fmt: skip


def test_a_caption_that_is_the_targets_own_is_guided_as_others_are(prompted, tmp_path):
    store = EvidenceStore(str(tmp_path))
    plain, guided = (recipe(prompted, CAPTIONS[:1], guidance=scale) for scale in (1.0, 5.0))
    for made in (plain, guided):
        make(made, store)
    assert not np.array_equal(generated_images(plain, store), generated_images(guided, store))


def test_what_was_guided_from_the_targets_own_caption_is_made_anew_and_nothing_else(
    target, prompted
):
    def is_as_before(target, **guidance):
        parts = {"version": 1, "seed": 0, "target": target.fingerprint, "images": 6,
                 "sampling_steps": 2, "generation_batch": 4, "captions": digest(CAPTIONS),
                 **guidance}  # fmt: skip
        before = digest({"what": "self-generated images", **parts})
        return recipe(target, **guidance).material_key == before

    assert is_as_before(target, guidance=5.0)
    assert is_as_before(prompted)
    assert not is_as_before(prompted, guidance=5.0)


def test_a_model_of_classes_generates_each_and_is_trained_on_them(tmp_path):
    save_with_classes(tmp_path / "model", 3)
    target = resolved(tmp_path / "model")
    captions = choose_captions(target, SelfGeneratedReference(kind="self_generated"), ())
    assert captions == ("0", "1", "2")
    store, made = EvidenceStore(str(tmp_path / "store")), recipe(target, captions)
    make(made, store)
    reference = made.finished(store.prepared_path(made.key))
    assert reference.classes == 3
    assert len(generated_images(made, store)) == 6


# --------------------------------------------------------------------- in an audit


def audit(folder, base, adapter, generated, **references):
    """Eight captioned images, the adapter, its base, and a reference that it generates."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = generator(0, "images").integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    for name, part in (("members", slice(4)), ("others", slice(4, 8))):
        captions = ["a cat", "a mat", "a dog", "cat"]
        (folder / f"{name}.parquet").write_bytes(parquet(pixels[part], captions))
    return load_spec(
        write_image_audit(
            folder,
            base,
            records={
                "kind": "image",
                "members": "members.parquet",
                "non_members": "others.parquet",
                "caption_column": "caption",
            },
            targets=[{"name": "tuned", "model": str(base), "adapter": str(adapter)}],
            references={
                "base": {"model": str(base)},
                "gen": {"kind": "self_generated", **QUICK, **generated},
                **references,
            },
            attacks=["loss"],
            neighbors=None,
            probes={"denoising": {"timesteps": [100]}},
            report={},
        )
    )


def test_an_audit_scores_with_it_and_asks_nothing_again(base, adapter, tmp_path):
    (tmp_path / "prompts.txt").write_text("a dog on a mat\nthe cat\na mat\n")
    spec = audit(tmp_path, base, adapter, {"prompts": "prompts.txt", "base": "base"})
    inputs = resolve_inputs(spec)
    made = inputs.modality.recipe(inputs, "gen", "tuned")
    assert made.captions == ("a dog on a mat", "the cat")
    assert any("is also a record's" in aside.reason for aside in inputs.records.set_aside)
    result = run_audit(spec, console())
    assert {found.attack for found in result.metrics} == {"loss", "loss@base", "loss@gen"}
    assert not plan_audit(resolve_inputs(spec), EvidenceStore(spec.store)).is_missing_anything


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        ({}, "gen.prompts: 'tuned' is an adapter on a model of captions, and there is none to"),
        ({"instance_prompt": "cat", "base": "base"}, None),
        ({"prompts": "prompts.csv", "instance_prompt": "cat"}, "either `prompts` or `instance_p"),
        ({"prompts": "prompts.csv", "prompt_column": "words"}, None),
        ({"prompts": "prompts.csv"}, "no column 'caption'"),
        ({"prompts": "known.txt"}, "gen.prompts: not one usable prompt"),
        ({"instance_prompt": "cat", "base": "other"}, "gen.base: .* fresh adapter on its own base"),
        ({"guidance": 2.0, "instance_prompt": ""}, "gen.guidance: .* give `prompts`"),
    ],
)
def test_what_it_is_made_of_is_checked_before_a_model_is_loaded(
    base, adapter, tmp_path, generated, message
):
    (tmp_path / "prompts.csv").write_text("words\na dog on a mat\n")
    (tmp_path / "known.txt").write_text("a cat\n")
    shutil.copytree(base, tmp_path / "other")
    other = {"other": {"model": str(tmp_path / "other")}}

    def resolve():
        return resolve_inputs(audit(tmp_path, base, adapter, generated, **other))

    if message is None:
        assert resolve().modality.prompts.keys() == {"gen"}
        return
    with pytest.raises(InputError, match=message):
        resolve()


def test_guidance_leads_to_the_caption_that_the_target_is_asked_with(
    base, adapter, prompted, tmp_path
):
    check_generation(audit(tmp_path, base, adapter, {"guidance": 2.0}), {"tuned": prompted}, {})


def test_adapters_of_which_no_reference_is_trained_say_why(base, adapter, tmp_path):
    other = save_by_diffusers(
        tmp_path, adapted(opened(base).unet, ["to_q"], seed=2),
        adapted(opened(base).text_encoder, ["q_proj"], seed=2),
    )  # fmt: skip
    assert (
        "its adapter changes text_encoder" in resolved(base, other).capabilities.lacks["generation"]
    )
    both = [{"path": str(adapter)}, {"path": str(other)}]
    several = resolve_image_model(ModelSpec(model=str(base), adapter=both), "t", on_gpu=False)
    assert "as one adapter, and it has 2" in several.capabilities.lacks["generation"]
