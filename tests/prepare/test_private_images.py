"""DP-SGD of image models: a step against its definition, budgets, kills, and what is refused."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import weights

from raymia.inputs.base import Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.models.autoencoders.vae import AutoencoderConfig, build_autoencoder
from raymia.prepare import training_loop
from raymia.prepare.autoencoder_training import Training as OfAutoencoder
from raymia.prepare.denoiser_files import fresh_pipeline, load_trainable, resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
from raymia.prepare.denoiser_training import Training as OfDenoiser
from raymia.prepare.private import Privacy, plan_privacy
from raymia.spec import AuditSpec
from raymia.spec.images import AutoencoderTrainingSpec, DiffusionTrainingSpec
from raymia.spec.methods import LoraMethod
from raymia.spec.target_training import DpSpec
from raymia.util.draws import generator
from raymia.util.errors import InputError

opacus = pytest.importorskip("opacus")

SHAPE = (1, 8, 8)
LIMIT = 0.05
SPEC = DpSpec(epsilon=5.0, delta=0.01, max_grad_norm=LIMIT, accountant="rdp")
SILENT = Privacy(SPEC, 0.0, 0.5, 4, 6)
IMAGES = generator(0, "images").integers(0, 256, (10, *SHAPE), dtype=np.uint8)
JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    fresh_pipeline(folder, SHAPE, channels=(8, 8), train_timesteps=50)
    return folder


def denoiser(pipeline, privacy=SILENT, method=None):
    settings = DiffusionTrainingSpec(steps=6, batch_size=2, warmup=1)
    frozen = None if method is None else resolve_trainable(pipeline, is_frozen=True)
    lora = None if frozen is None else lora_settings(method, frozen)
    model = load_trainable(pipeline, from_weights=False, seed=0, lora=lora)
    return OfDenoiser(IMAGES, model, settings, 0, privacy)


def autoencoder(privacy=SILENT, **config):
    whole = {"objective": "vae", "image_shape": SHAPE, "latent": 3, "channels": (4, 4),
             "normalization": "group", **config}  # fmt: skip
    torch.manual_seed(0)
    network = build_autoencoder(AutoencoderConfig(**whole))
    settings = AutoencoderTrainingSpec(epochs=2, batch_size=2)
    return OfAutoencoder(IMAGES, network, settings, 0, privacy)


@pytest.fixture
def caught(monkeypatch):
    """Gradients of each step as the optimizer was given them, and the losses they came from."""
    from opacus.optimizers import DPOptimizer

    from raymia.prepare.private_images import PrivateSteps

    steps, original, take = [], DPOptimizer.scale_grad, PrivateSteps.take

    def scale_grad(self):
        steps[-1]["found"] = [one.grad.clone() for one in self.params]
        original(self)

    def watched(self, step, count, size, losses):
        own = [one for one in self.network.parameters() if one.requires_grad]
        total = [torch.zeros_like(one) for one in own]
        for place in range(count):  # the definition: each image alone, cut to a length, summed
            self.network.zero_grad()
            losses(place, place + 1).sum().backward()
            norm = torch.sqrt(sum((one.grad**2).sum() for one in own))
            for one, sums in zip(own, total, strict=True):
                sums += one.grad * min(1.0, LIMIT / float(norm))
        self.network.zero_grad()
        steps.append({"wanted": total, "count": count, "size": size})
        take(self, step, count, size, losses)

    monkeypatch.setattr(DPOptimizer, "scale_grad", scale_grad)
    monkeypatch.setattr(PrivateSteps, "take", watched)
    return steps


@pytest.mark.parametrize("kind", ["denoiser", "lora", "vae", "beta_vae"])
def test_a_step_is_the_sum_of_cut_gradients_of_its_poisson_sample(pipeline, caught, kind):
    methods = {"denoiser": None, "lora": LoraMethod(r=2, target_modules=["to_q", "to_v", "conv1"])}
    training = (
        denoiser(pipeline, method=methods[kind]) if kind in methods else autoencoder(objective=kind)
    )
    for _ in range(2):
        training.advance()
    assert max(step["count"] for step in caught) > 2, "more than are computed at a time"
    assert len({step["count"] for step in caught}) > 1, "no Poisson samples"
    for step in caught:
        found, wanted = (torch.cat([one.flatten() for one in step[k]]) for k in ("found", "wanted"))
        assert float(wanted.norm()) > 0.01 or not step["count"]
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)


def test_the_noise_is_as_large_as_the_accountant_says(caught):
    loud = Privacy(SPEC, 20.0, 0.5, 4, 6)
    autoencoder(loud).advance()
    for step in caught:
        flat = torch.cat([(a - b).flatten() for a, b in zip(step["found"], step["wanted"],
                                                            strict=True)])  # fmt: skip
        assert float(flat.std()) == pytest.approx(20 * LIMIT, rel=0.1)


def test_layers_that_remember_images_are_refused_by_name():
    with pytest.raises(InputError, match=r"\(BatchNorm2d\).* keep numbers of .*--normalization"):
        autoencoder(normalization="batch")


# ----------------------------------------------------------------------------- jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("images")
    for number, image in enumerate(generator(1, "i").integers(0, 256, (30, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(made / f"{number:02}.png")
    return made


OF = {
    "train_diffusion": "--steps 6 --warmup 1 --channels 8 8 --checkpoint-every 2",
    "train_vae": "--objective vae --latent 3 --channels 4 8 --epochs 3 --checkpoint-every 1 "
    "--normalization group",
}
PRIVATE = "--dp-epsilon 4 --dp-delta 0.01 --dp-accountant rdp"


def run(job, folder, out, more=PRIVATE):
    words = f"--data {folder} --out {out} --shape 1 8 8 --members 16 --held-out 8 --batch-size 4 "
    script = runpy.run_path(str(JOBS / f"{job}.py"))
    return script["main"]((words + OF[job] + " " + more).split())


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


class Killed(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("job", OF)
def test_each_checkpoint_says_what_was_spent_and_a_kill_changes_nothing(
    tmp_path, folder, job, monkeypatch
):
    from opacus.accountants import create_accountant

    assert run(job, folder, tmp_path / "whole") == 0
    whole = manifest(tmp_path / "whole")
    assert whole["privacy"]["epsilon"] == 4
    per = 4 if job == "train_vae" else 1
    steps = [per * one["epoch" if per == 4 else "step"] for one in whole["checkpoints"]]
    planned = plan_privacy(DpSpec(epsilon=4, delta=0.01, accountant="rdp"), 16, 4, steps[-1])
    for one, taken in zip(whole["checkpoints"], steps, strict=True):
        own = create_accountant(mechanism="rdp")
        for _ in range(taken):
            own.step(noise_multiplier=planned.noise_multiplier, sample_rate=0.25)
        assert one["privacy"]["epsilon"] == pytest.approx(own.get_epsilon(delta=0.01))
    assert 3.9 < whole["checkpoints"][-1]["privacy"]["epsilon"] <= 4
    original = training_loop.save_state

    def dying(out, run, now, *given):
        original(out, run, now, *given)
        if now.step == steps[1]:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "save_state", dying)
        with pytest.raises(Killed):
            run(job, folder, tmp_path / "killed")
    assert run(job, folder, tmp_path / "killed") == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert manifest(tmp_path / "killed")["checkpoints"] == whole["checkpoints"]


def test_an_audit_reads_the_claim_of_each_checkpoint(tmp_path, folder):
    assert run("train_vae", folder, tmp_path) == 0
    spec = AuditSpec.model_validate({
        "records": {"kind": "image", "members": str(tmp_path / "members.parquet"),
                    "non_members": str(tmp_path / "non_members.parquet")},
        "targets": [{"manifest": str(tmp_path / "manifest.json")}],
    })  # fmt: skip
    expanded, _ = expand_targets(spec, Problems())
    spent = [one["privacy"]["epsilon"] for one in manifest(tmp_path)["checkpoints"]]
    assert [target.claim.epsilon for target in expanded.targets] == spent
    assert {target.claim.delta for target in expanded.targets} == {0.01}


@pytest.mark.parametrize(
    ("job", "more", "message"),
    [
        ("train_diffusion", "--dp-epsilon 3", "needs --dp-delta, too"),
        ("train_diffusion", "--dp-epsilon -3 --dp-delta 0.01", "epsilon: Input should be greater"),
        ("train_diffusion", f"{PRIVATE} --batch-size 17", "a private step takes 17 of 16 images"),
        ("train_diffusion", "--dp-epsilon 3 --dp-delta 0.1", "dp.delta: 0.1 allows a record of 16"),
        ("train_vae", f"{PRIVATE} --objective wae_mmd", "no image has a loss of its own; take the"),
        ("train_vae", f"{PRIVATE} --objective rhvae", "keeps encodings of images"),
        ("train_vae", f"{PRIVATE} --normalization batch", "BatchNorm"),
    ],
)
def test_what_cannot_be_private_is_refused_before_training(
    tmp_path, folder, capsys, job, more, message
):
    assert run(job, folder, tmp_path / "out", more) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.glob("out/checkpoint-*")]
