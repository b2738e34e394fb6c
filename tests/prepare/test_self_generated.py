"""The self-generated reference: made of what the target generates, and kept step by step."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from small_image_models import save_model

from raymia.evidence.store import EvidenceStore
from raymia.models.autoencoders.model import load_autoencoder
from raymia.models.autoencoders.vae import AutoencoderConfig, build_autoencoder
from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.model import load_denoiser
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.image_source import resolve_image_model
from raymia.prepare import generate_images, image_families, train_denoiser
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.parts import PartsMissing, Share
from raymia.prepare.self_generated import (
    SelfGeneratedRecipe,
    generated_images,
    make_image_reference,
)
from raymia.spec import ModelSpec, PoolSpec, SelfGeneratedReference
from raymia.util.errors import InputError, RaymiaError

SHAPE = (1, 8, 8)
TRAINING = {"steps": 6, "batch_size": 4, "warmup": 1, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "target"
    fresh_pipeline(folder, SHAPE, channels=(8, 16), attention=False, seed=1)
    return resolve_image_model(ModelSpec(model=str(folder)), "target", on_gpu=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    fresh_pipeline(folder, SHAPE, channels=(8, 8), attention=False, seed=2)
    return resolve_image_model(ModelSpec(model=str(folder)), "base", on_gpu=False)


def recipe(target, base=None, seed=0, **changes):
    quick = {"images": 6, "sampling_steps": 3, "generation_batch": 4, "training": TRAINING}
    spec = SelfGeneratedReference(**{"kind": "self_generated", **quick, **changes})
    return SelfGeneratedRecipe(target, base, spec, seed)


def make(made, store):
    def progress(*_):
        return None

    make_image_reference(made, store, batch_images=4, on_images=progress, on_steps=progress)


def checkpoint_of(made, store):
    return made.finished(store.prepared_path(made.key))


def network(folder):
    return safetensors.torch.load_file(f"{folder}/unet/diffusion_pytorch_model.safetensors")


def test_made_reference_can_be_asked_and_is_not_the_target(tmp_path, target):
    store, made = EvidenceStore(str(tmp_path)), recipe(target)
    assert generated_images(made, store) is None
    make(made, store)
    facts = store.prepared_facts(made.key)
    assert facts["generated"] == 6
    assert facts["images"] + facts["held_out_images"] == 6
    assert {"train_loss", "held_out_loss", "step", "seconds"} <= facts.keys()
    reference = checkpoint_of(made, store)
    assert reference.shape == target.shape
    assert reference.fingerprint != target.fingerprint
    x, t = torch.zeros(1, *SHAPE), torch.tensor([500])
    answers = [load_denoiser(c, batch_images=4).predict_noise(x, t) for c in (target, reference)]
    assert not torch.allclose(*answers, atol=1e-3)


def test_images_are_what_the_target_generates(tmp_path, target):
    store, made = EvidenceStore(str(tmp_path)), recipe(target, seed=4)
    make(made, store)
    expected = generate_images.generate_images(
        load_denoiser(target, batch_images=4),
        range(6),
        seed=4,
        steps=3,
        batch=4,
        progress=lambda *_: None,
    )
    assert np.array_equal(generated_images(made, store), expected)


def test_workers_that_share_generate_what_one_does(tmp_path, target, monkeypatch):
    whole, shared, made = (*(EvidenceStore(str(tmp_path / n)) for n in "ab"), recipe(target))
    make(made, whole)
    numbers, generate = [], generate_images.generate_images

    def noted(model, some, **settings):
        numbers.append(list(some))
        return generate(model, some, **settings)

    monkeypatch.setattr(generate_images, "generate_images", noted)
    with pytest.raises(PartsMissing):
        made.write_share(Share(1, 2), shared, PoolSpec(), lambda _: lambda *_: None)
    made.write_share(Share(0, 2), shared, PoolSpec(), lambda _: lambda *_: None)
    assert numbers == [[4, 5], [0, 1, 2, 3]]
    assert {*shared.folder.names("prepared", "")} <= {*made.part_keys}
    make(made, shared)
    assert len(numbers) == 2
    assert np.array_equal(generated_images(made, shared), generated_images(made, whole))
    assert {*shared.folder.names("prepared", "")} == {made.key, made.material_key}


def test_base_is_trained_further_and_without_one_the_architecture_is_the_targets(
    tmp_path, target, base
):
    slow = {**TRAINING, "learning_rate": 1e-9}
    store = EvidenceStore(str(tmp_path))
    further, fresh = recipe(target, base, training=slow), recipe(target, training=slow)
    for made in (further, fresh):
        make(made, store)
    start, end = network(base.path), network(checkpoint_of(further, store).path)
    assert all(torch.allclose(start[name], end[name], atol=1e-6) for name in start)
    start, end = network(target.path), network(checkpoint_of(fresh, store).path)
    assert {name: value.shape for name, value in start.items()} == {
        name: value.shape for name, value in end.items()
    }
    assert not all(torch.allclose(start[name], end[name], atol=1e-2) for name in start)


def test_a_target_that_was_trained_at_another_size_has_a_reference_of_that_size(
    tmp_path, target, base
):
    resized, start = (as_trained(one, None, (16, 16)) for one in (target, base))
    store = EvidenceStore(str(tmp_path))
    for made in (recipe(resized), recipe(resized, start)):
        make(made, store)
        assert generated_images(made, store).shape[1:] == (1, 16, 16)
        reference = checkpoint_of(made, store)
        assert reference.shape == (1, 16, 16)
        assert reference.fingerprint != resized.fingerprint


class Killed(BaseException):
    """Stands for a signal: no handler of errors may catch it."""


def killed(*_, **__):
    raise Killed


def test_killed_training_does_not_ask_the_target_again(tmp_path, target, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe(target)
    with monkeypatch.context() as patch:
        patch.setattr(train_denoiser, "train_denoiser", killed)
        with pytest.raises(Killed):
            make(made, store)
    assert store.prepared_facts(made.key) is None
    assert len(generated_images(made, store)) == 6
    monkeypatch.setattr(generate_images, "generate_images", killed)
    make(made, store)
    assert store.prepared_facts(made.key)["generated"] == 6


def overwritten(checkpoint, tmp_path):
    """A copy of a checkpoint whose files are another model's now."""
    copied = shutil.copytree(checkpoint.path, tmp_path / "copy")
    found = resolve_image_model(ModelSpec(model=str(copied)), "copy", on_gpu=False)
    fresh_pipeline(copied, SHAPE, channels=(8, 16), attention=False, seed=9)
    return found


def test_nothing_is_generated_by_files_other_than_those_that_were_planned_with(tmp_path, target):
    store, made = EvidenceStore(str(tmp_path / "store")), recipe(overwritten(target, tmp_path))
    with pytest.raises(RaymiaError, match="copy: these are not the files that the audit was pl"):
        make(made, store)
    with pytest.raises(RaymiaError, match="copy: these are not the files that the audit was pl"):
        made.write_share(Share(0, 2), store, PoolSpec(), lambda _: lambda *_: None)
    assert not store.folder.names("prepared", "")


@pytest.mark.parametrize("changed", ["target", "base"])
def test_nothing_is_kept_that_was_made_while_the_files_were_written_to(
    tmp_path, target, base, monkeypatch, changed
):
    store = EvidenceStore(str(tmp_path / "store"))
    copied = Path(shutil.copytree((target if changed == "target" else base).path, tmp_path / "c"))
    found = resolve_image_model(ModelSpec(model=str(copied)), "copy", on_gpu=False)
    made = recipe(found) if changed == "target" else recipe(target, found)
    module, name = (
        (generate_images, "generate_images")
        if changed == "target"
        else (train_denoiser, "train_denoiser")
    )
    call, (weights, *_) = getattr(module, name), sorted(copied.rglob("*.safetensors"))

    def called(*arguments, **options):
        found = call(*arguments, **options)
        content = weights.read_bytes()
        weights.unlink()
        weights.write_bytes(content)
        return found

    monkeypatch.setattr(module, name, called)
    with pytest.raises(RaymiaError, match=f"c: these are no longer the files .*: {weights} was"):
        make(made, store)
    assert store.prepared_facts(made.key) is None
    assert (store.prepared_facts(made.material_key) is None) == (changed == "target")
    assert not [*(tmp_path / "store").rglob("*.safetensors")]


@pytest.mark.parametrize("which", ["target", "base"])
def test_nothing_is_trained_on_from_files_other_than_those_that_were_planned_with(
    tmp_path, target, base, monkeypatch, which
):
    store, made = EvidenceStore(str(tmp_path / "store")), recipe(target)
    with monkeypatch.context() as patch:
        patch.setattr(train_denoiser, "train_denoiser", killed)
        with pytest.raises(Killed):
            make(made, store)
    changed = overwritten(target if which == "target" else base, tmp_path)
    made = recipe(changed) if which == "target" else recipe(target, changed)
    with pytest.raises(RaymiaError, match="copy: these are not the files that the audit was pl"):
        make(made, store)
    assert store.prepared_facts(made.key) is None


def test_killed_generation_leaves_nothing_to_be_taken_for_images(tmp_path, target, monkeypatch):
    store, made = EvidenceStore(str(tmp_path)), recipe(target)
    monkeypatch.setattr(generate_images, "generate_images", killed)
    with pytest.raises(Killed):
        make(made, store)
    assert generated_images(made, store) is None


def test_keys_are_those_of_all_that_matters(target, base):
    plain = recipe(target)
    other_target = recipe(replace(target, fingerprint="other"))
    for other in (
        other_target,
        recipe(target, seed=1),
        recipe(target, images=7),
        recipe(target, sampling_steps=4),
    ):
        assert other.material_key != plain.material_key
        assert other.key != plain.key
    for other in (recipe(target, base), recipe(target, training={**TRAINING, "steps": 7})):
        assert other.material_key == plain.material_key
        assert other.key != plain.key
    assert recipe(replace(target, path="/elsewhere")).key == plain.key


@pytest.mark.parametrize("objective", ["vae", "wae_mmd"])
def test_autoencoder_decodes_its_prior_and_a_fresh_one_is_trained_on_that(tmp_path, objective):
    torch.manual_seed(0)
    config = AutoencoderConfig(objective=objective, image_shape=SHAPE, latent=3, channels=(4, 8))
    (tmp_path / "vae").mkdir()
    build_autoencoder(config).eval().save(tmp_path / "vae")
    spec = ModelSpec(model=str(tmp_path / "vae"))
    target = resolve_image_model(spec, "target", on_gpu=False)
    store, made = EvidenceStore(str(tmp_path / "store")), recipe(target)
    make(made, store)
    expected = generate_images.decode_prior(
        load_autoencoder(target, batch_images=4),
        range(6),
        seed=0,
        batch=4,
        progress=lambda *_: None,
    )
    assert np.array_equal(generated_images(made, store), expected)
    reference = checkpoint_of(made, store)
    assert reference.fingerprint != target.fingerprint
    assert load_autoencoder(reference, batch_images=4).shape == SHAPE


def test_model_that_generates_nothing_is_refused(tmp_path, base):
    store = EvidenceStore(str(tmp_path))
    for kind in ("imagegpt", "autoencoder_kl"):
        save_model(kind, tmp_path / kind)
    pixels, autoencoder = (
        resolve_image_model(ModelSpec(model=str(tmp_path / kind)), kind, on_gpu=False)
        for kind in ("imagegpt", "autoencoder_kl")
    )
    with pytest.raises(InputError, match="of the family pixels, which generates no images"):
        make(recipe(pixels), store)
    with pytest.raises(InputError, match="leave out `base`"):
        make(recipe(autoencoder, base), store)


class GreyCheckpoint(DenoiserCheckpoint):
    family = "grey"


class Grey(image_families.ImageFamily):
    """Generates one grey, and learns nothing."""

    def load(self, checkpoint, _):
        return checkpoint.shape

    def generate(self, model, recipe, *_):
        return np.full((recipe.spec.images, *model), 7, np.uint8)

    def train(self, _, images, out, *__):
        (out / "grey.txt").write_text(str(images.mean()))
        return {"steps": 1}


def test_another_family_generates_and_is_trained_by_one_class(target, tmp_path, monkeypatch):
    grey = GreyCheckpoint(**{f.name: getattr(target, f.name) for f in fields(target)})
    store = EvidenceStore(str(tmp_path / "store"))
    with pytest.raises(InputError, match="of the family grey, which generates no images here"):
        make(recipe(grey), store)
    monkeypatch.setitem(image_families._FAMILIES, "grey", Grey())
    made = recipe(grey)
    make(made, store)
    assert (generated_images(made, store) == 7).all()
    assert store.prepared_facts(made.key)["steps"] == 1
    assert (store.prepared_path(made.key) / "grey.txt").read_text() == "7.0"
