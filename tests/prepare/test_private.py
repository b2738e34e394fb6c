"""DP-SGD: each record's gradient is cut by itself, noise is what the accountant says, and what
opacus cannot do is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from command_line import raymia
from small_training import facts_of, stopping_after, tiny, train, weights, write_training

from raymia.modalities.texts.target_training import resolve_target_training
from raymia.prepare import trainer
from raymia.prepare.private import PoissonSamples, Privacy, plan_privacy
from raymia.prepare.private_trainer import check_private
from raymia.prepare.train_target import encode, train_target
from raymia.prepare.tuning import load_to_train
from raymia.spec.target_training import DpSpec
from raymia.spec.training_file import load_training
from raymia.util.errors import InputError

opacus = pytest.importorskip("opacus")

DP = {"epsilon": 8.0, "delta": 0.01, "accountant": "rdp"}
OPTIONS = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def resolved(tmp_path, kind="gpt2", method="lora", dp=DP, **options):
    file = write_training(tmp_path, tiny(kind), method, trainer={**OPTIONS, **options}, dp=dp)
    return resolve_target_training(load_training(file)).plan


def cut_sum(plan, rows, limit):
    """The definition: the gradient of each record alone, cut to a length, summed."""
    model = load_to_train(plan.base, plan.method, plan.seed).eval()
    own = {name: one for name, one in model.named_parameters() if one.requires_grad}
    total = {name: torch.zeros_like(one) for name, one in own.items()}
    for row in rows:
        model.zero_grad()
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        torch.nn.functional.cross_entropy(logits, labels).backward()
        norm = torch.sqrt(sum((one.grad**2).sum() for one in own.values()))
        for name, one in own.items():
            total[name] += one.grad * min(1.0, limit / float(norm))
    return total


@pytest.fixture
def caught(monkeypatch):
    """Gradients of each step as the optimizer was given them, flattened."""
    from opacus.optimizers import DPOptimizer

    steps = []
    original = DPOptimizer.scale_grad

    def scale_grad(self):
        steps.append([one.grad.clone() for one in self.params])
        original(self)

    monkeypatch.setattr(DPOptimizer, "scale_grad", scale_grad)
    return steps


@pytest.mark.parametrize(
    ("kind", "method"), [("gpt2", "full"), ("gpt2", "lora"), ("llama", "full"), ("falcon", "lora")]
)
def test_a_step_is_the_sum_of_cut_gradients_of_its_poisson_sample(tmp_path, caught, kind, method):
    plan = resolved(tmp_path, kind, method)
    limit = 0.5
    silent = Privacy(DpSpec(**{**DP, "max_grad_norm": limit}), 0.0, 0.6, 4, 3)
    train_target(type(plan)(**{**plan.__dict__, "privacy": silent}), lambda *_: None)
    rows = encode(plan.members, plan.base.tokenizer_source.load(), plan.training)
    sample = next(iter(PoissonSamples(12, silent.sample_rate, 3, plan.seed)))
    assert len(sample) > 2, "more than are computed at a time"
    expected = cut_sum(plan, [rows[n] for n in sample], limit)
    found, wanted = (
        torch.cat([one.flatten() for one in each]).sort().values
        for each in (caught[0], list(expected.values()))
    )
    assert float(wanted.norm()) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_the_noise_is_as_large_as_the_accountant_says_and_new_in_each_step(tmp_path, caught):
    plan = resolved(tmp_path, method="full", learning_rate=1e-9)
    for noise in (0.0, 3.0):
        spec = DpSpec(**{**DP, "max_grad_norm": 0.5})
        privacy = Privacy(spec, noise, plan.privacy.sample_rate, 4, 3)
        changed = {**plan.__dict__, "privacy": privacy, "out": plan.out / str(noise)}
        train_target(type(plan)(**changed), lambda *_: None)
    flat = [torch.cat([one.flatten() for one in step]) for step in caught]
    noises = [loud - silent for silent, loud in zip(flat[:3], flat[3:], strict=True)]
    for one in noises:
        assert float(one.std()) == pytest.approx(3.0 * 0.5, rel=0.02)
        assert abs(float(one.mean())) < 0.03
    assert abs(float(torch.corrcoef(torch.stack(noises[:2]))[0, 1])) < 0.02


def test_the_plan_says_the_budget_and_the_noise(tmp_path):
    planned = raymia("plan", write_training(tmp_path, tiny("gpt2"), trainer=OPTIONS, dp=DP))
    assert "epsilon 8 of 8 at a delta of 0.01; noise of 0.521 x 1" in planned.stdout


def test_samples_are_poisson():
    samples = list(PoissonSamples(50, 0.1, 2_000, 3))
    sizes = np.array([len(one) for one in samples])
    assert sizes.mean() == pytest.approx(5, abs=0.25)
    assert sizes.var() == pytest.approx(4.5, abs=0.6)  # of a binomial; of fixed batches it is 0
    often = np.bincount(np.concatenate(samples).astype(int), minlength=50)
    assert (abs(often - 200) < 4.5 * np.sqrt(180)).all()
    assert samples == list(PoissonSamples(50, 0.1, 2_000, 3))
    assert samples != list(PoissonSamples(50, 0.1, 2_000, 4))


def test_a_step_without_a_record_is_noise_alone(tmp_path, caught):
    plan = resolved(tmp_path, max_steps=2)
    privacy = Privacy(plan.privacy.spec, 1.0, 1e-9, 4, 2)
    train_target(type(plan)(**{**plan.__dict__, "privacy": privacy}), lambda *_: None)
    flat = torch.cat([one.flatten() for one in caught[0]])
    assert float(flat.std()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("accountant", "epsilon"), [("rdp", 1.0), ("rdp", 10.0), ("prv", 4.0)])
def test_the_budget_is_what_opacus_reckons_step_by_step(accountant, epsilon):
    from opacus.accountants import create_accountant

    spec = DpSpec(epsilon=epsilon, delta=1e-4, accountant=accountant)
    privacy = plan_privacy(spec, 1_000, 50, 40)
    own = create_accountant(mechanism=accountant)
    for step in range(1, 41):
        own.step(noise_multiplier=privacy.noise_multiplier, sample_rate=0.05)
        if step in (1, 40):
            assert privacy.spent(step) == pytest.approx(own.get_epsilon(delta=1e-4))
    assert epsilon * 0.97 < privacy.spent(40) <= epsilon
    assert privacy.spent(1) < privacy.spent(40)


def test_the_manifest_says_what_was_spent_and_a_kill_spends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    options = {**OPTIONS, "save_strategy": "steps", "save_steps": 1}

    def file(name):
        return write_training(tmp_path / name, tiny("gpt2"), trainer=options, dp=DP)

    whole = train(file("whole"))
    spent = [one["privacy"]["epsilon"] for one in whole["checkpoints"]]
    assert spent == sorted(spent)
    assert 7.8 < spent[-1] <= 8
    assert whole["privacy"]["unit"] == "record"
    assert whole["privacy"]["sample_rate"] == pytest.approx(4 / 12)
    killed = file("killed")
    with stopping_after(2, monkeypatch):
        train(killed)
    assert facts_of(train(killed)) == facts_of(whole)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "method", "message"),
    [
        ("gpt2", "ia3", r"one record from those of others in .*c_attn.ia3_l.*take `lora` or"),
        ("llama", "dora", "opacus cannot compute the gradients of each record of a llama .* dora"),
        ("falcon", "full", "each record of a falcon .* by full: .*take `lora`, or leave out"),
    ],
)
def test_layers_that_opacus_cannot_handle_are_refused_by_name(tmp_path, kind, method, message):
    with pytest.raises(InputError, match=message):
        train(write_training(tmp_path, tiny(kind), method, trainer=OPTIONS, dp=DP))
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_layers_that_remember_records_are_refused_by_name(tmp_path):
    plan = resolved(tmp_path, method="full")
    model = load_to_train(plan.base, plan.method, plan.seed)
    model.transformer.ln_f = torch.nn.BatchNorm1d(32)
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 2
    with pytest.raises(InputError, match=r"transformer.ln_f \(BatchNorm1d\) keep numbers"):
        check_private(model, plan.method, rows)


def test_records_whose_gradients_mix_are_noticed(tmp_path):
    """A layer that puts the mean over the batch into each record."""

    class Mixes(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, states):
            return self.inner(states + states.mean(0, keepdim=True))

    plan = resolved(tmp_path, method="full")
    model = load_to_train(plan.base, plan.method, plan.seed)
    sound = copy.deepcopy(model)
    model.transformer.h[0].mlp = Mixes(model.transformer.h[0].mlp)
    rows = [{"input_ids": ids, "labels": ids} for ids in ([1, 2, 3, 4], [9, 8, 7, 6])]
    with pytest.raises(InputError, match="does not tell the gradients of one record"):
        check_private(model, plan.method, rows)
    check_private(sound, plan.method, rows)


@pytest.mark.parametrize(
    ("method", "dp", "message"),
    [
        ("lora", {"delta": 0.2}, r"dp.delta: 0.2 allows a record of 12"),
        ("lora", {"epsilon": 1e-3, "delta": 1e-6}, "dp.epsilon: no noise keeps 3 steps"),
        ("prefix", {}, "virtual tokens are of all records"),
        ("lora", {"sigma": 1}, "dp.sigma: unknown key"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(tmp_path, method, dp, message):
    with pytest.raises(InputError, match=message):
        resolved(tmp_path, method=method, dp={**DP, **dp})
