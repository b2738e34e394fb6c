"""What a plan says an audit takes: rates that runs measured, memory from the files' headers."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass

import pytest
from rich.console import Console
from small_inputs import answer, audit
from tiny_models import BASE, PARAPHRASER, checkpoint

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.loader import CausalLMLoader
from raymia.models.memory import GPU_GIB, Memory
from raymia.plan.estimate import estimate
from raymia.plan.planning import plan_audit
from raymia.plan.rates import Rate, Rates
from raymia.plan.training import priced_as
from raymia.report.plan_table import plan_table
from raymia.util.once import Once


@dataclass
class Line:
    done: int
    seconds: float


@pytest.fixture
def planned(tmp_path, tiny_gpt2):
    def make(**changes):
        settings = {"attacks": ["loss", "neighbor", "difference@base"], **changes}
        settings.setdefault("references", {"base": {"model": str(BASE)}})
        inputs = resolve_inputs(audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, **settings))
        store = EvidenceStore(str(tmp_path / "store"))
        return inputs, store, plan_audit(inputs, store)

    return make


WORK = {
    "neighbors": Line(12, 24.0),  # 2 s each
    "target:one": Line(18, 9.0),
    "reference:base": Line(6, 1.5),
}


def test_nothing_is_claimed_before_anything_was_measured(planned):
    found = estimate(planned()[0], planned()[2], planned()[1])
    assert found.wall_seconds is None
    assert found.cost is None
    assert found.gpu_hours is None
    assert [stage.seconds for stage in found.stages] == [None, None, None]


def test_what_a_run_took_is_what_the_same_questions_will_take(planned):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    assert {s.name: s.seconds for s in found.stages} == pytest.approx(
        {"neighbors": 24.0, "target:one": 9.0, "reference:base": 1.5}
    )
    assert found.wall_seconds == pytest.approx(24.0)  # the pools work side by side


def test_what_is_stored_takes_no_time(planned):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    for stage in plans[0].stages:
        for one in stage.questions:
            answer(store, one, inputs.records.ids[:3])
    found = estimate(inputs, plan_audit(inputs, store), store)
    assert {s.name: s.seconds for s in found.stages} == pytest.approx(
        {"neighbors": 12.0, "target:one": 4.5, "reference:base": 0.75}
    )


def test_actors_share_the_work_and_are_paid_for_as_long_as_the_slowest_pool_runs(planned):
    inputs, store, plans = planned(
        resources={
            "paraphraser": {"actors": 2, "gpus": 1, "accelerator_type": "T4"},
            "target": {"actors": 3, "gpus": 0.5, "accelerator_type": "A10G"},
        },
        costs={"per_hour": {"T4": 36.0, "A10G": 72.0, "CPU": 3.6}},
    )
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    wall = 24.0 / 2
    assert found.wall_seconds == pytest.approx(wall)
    assert found.gpu_hours == pytest.approx((24.0 * 1 + 9.0 * 0.5) / 3600)
    per_second = (2 * 36.0 + 3 * 0.5 * 72.0 + 1 * 3.6) / 3600
    assert found.cost == pytest.approx(wall * per_second)


def other_weights(model, folder):
    """Another checkpoint of the same architecture."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    return str(folder)


@pytest.fixture
def two_targets(planned, tiny_gpt2, tmp_path):
    """Two targets that share neighbors and a reference, of which the second is asked alone."""
    other = other_weights(tiny_gpt2, tmp_path / "other")
    targets = [{"name": "one", "model": str(tiny_gpt2)}, {"name": "two", "model": other}]
    inputs, store, plans = planned(targets=targets)
    Rates(store).keep_run(inputs, plans, WORK, store)
    return inputs, store, plans


def test_a_rate_is_written_once_for_all_targets_that_it_is_of(two_targets, monkeypatch):
    inputs, store, plans = two_targets
    written, write = [], store.folder.write
    monkeypatch.setattr(
        store.folder, "write", lambda name, c: written.append(name) or write(name, c)
    )
    work = {**WORK, "target:two": Line(6, 9.0)}
    Rates(store).keep_run(inputs, plans, work, store)
    assert len(written) == len(set(written)) == 2  # the reference was asked too little
    found = {s.name: s.seconds for s in estimate(inputs, plans, store).stages}
    assert found["target:one"] == found["target:two"] == pytest.approx(18 * 18.0 / 24)
    assert found["reference:base"] == pytest.approx(1.5)


def test_what_targets_share_takes_its_time_though_the_first_of_them_asks_it_all(two_targets):
    inputs, store, plans = two_targets
    found = estimate(inputs, plans, store)
    assert {s.name: s.seconds for s in found.stages} == pytest.approx(
        {"neighbors": 24.0, "target:one": 9.0, "reference:base": 1.5, "target:two": 9.0}
    )
    assert found.wall_seconds == pytest.approx(24.0 + 9.0)


def test_what_each_target_has_left_of_what_they_share_is_put_together(two_targets):
    """Half of the first target's answers are stored, without the neighbors that they are about."""
    inputs, store, plans = two_targets
    for stage in (plans[0].target, plans[0].references["base"]):
        for one in stage.questions:
            answer(store, one, inputs.records.ids[:3])
    plans = plan_audit(inputs, store)
    assert [plan.neighbors.to_ask for plan in plans] == [6, 6]
    found = estimate(inputs, plans, store)
    assert {s.name: s.to_ask for s in found.stages} == {
        "neighbors": 12, "target:one": 9, "reference:base": 3, "target:two": 18
    }  # fmt: skip
    assert found.stages[0].seconds == pytest.approx(24.0)
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(inputs, plans, found))
    row = next(line for line in console.file.getvalue().splitlines() if "neighbors" in line)
    assert [cell.strip() for cell in row.split("│")[3:5]] == ["12", "0"]


def test_the_local_engine_asks_one_model_after_another_with_one_worker(planned):
    inputs, store, plans = planned(
        resources={"engine": "local", "target": {"actors": 3}, "paraphraser": {"max_actors": 2}},
        costs={"per_hour": {"CPU": 3.6}},
    )
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    assert {stage.actors for stage in found.stages} == {1}
    assert found.wall_seconds == pytest.approx(24.0 + 9.0 + 1.5)
    assert found.cost == pytest.approx((24.0 + 9.0 + 1.5) * 3.6 / 3600)


def test_a_gpu_whose_type_is_not_said_has_no_price(planned):
    prices = {"per_hour": {"CPU": 0.1, "T4": 0.5}}
    inputs, store, plans = planned(resources={"target": {"gpus": 1}}, costs=prices)
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    assert found.wall_seconds is not None
    assert found.cost is None


@pytest.mark.parametrize(
    ("gpu", "kinds", "kind"),
    [
        ("NVIDIA L40S", ["L4"], "NVIDIA L40S"),
        ("NVIDIA A10G", ["A10", "A10G"], "A10G"),
        ("NVIDIA A10", ["A10G", "A10"], "A10"),
        ("NVIDIA A100-SXM4-80GB", ["A100-40G", "A100", "A100-80G"], "A100-80G"),
        ("NVIDIA A100-SXM4-80GB", ["A100-40G", "A100"], "A100"),
        ("Tesla V100-SXM2-16GB", ["CPU", "V100"], "V100"),
    ],
)
def test_a_gpu_has_the_price_of_the_type_that_its_name_has_word_for_word(gpu, kinds, kind):
    assert priced_as(gpu, kinds) == kind


def test_machine_without_a_price_leaves_the_cost_open(planned):
    inputs, store, plans = planned(costs={"per_hour": {"A10G": 1.0}})
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    assert found.wall_seconds is not None
    assert found.cost is None


def test_a_rate_holds_for_other_weights_of_the_architecture_and_not_for_another(planned, tiny_gpt2):
    inputs, store, plans = planned(
        targets=[{"name": "one", "model": str(tiny_gpt2)}, {"name": "two", "model": str(BASE)}]
    )
    Rates(store).keep_run(inputs, plans[:1], WORK, store)
    found = {s.name: s for s in estimate(inputs, plans, store).stages}
    assert found["target:one"].seconds == pytest.approx(9.0)
    assert found["target:two"].seconds is None


def test_longer_texts_take_longer_in_proportion(planned):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    (text, *rest) = inputs.records.table["payload"].to_pylist()
    assert inputs.modality.mean_size(inputs.records) == pytest.approx(
        sum(map(len, [text, *rest])) / inputs.records.table.num_rows
    )
    assert Rate(2.0, 10, size=100.0).at(250.0) == 5.0


def test_few_questions_take_the_place_of_nothing(tmp_path):
    rates = Rates(EvidenceStore(str(tmp_path)))
    rates.keep("key", Rate(1.0, 3))
    assert rates.get("key") == Rate(1.0, 3)
    rates.keep("key", Rate(2.0, 100))
    rates.keep("key", Rate(9.0, 3))
    assert rates.get("key") == Rate(2.0, 100)


# -------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_weights_take_what_the_loaded_model_takes(tiny_llama, quantization):
    given = checkpoint(tiny_llama, quantization=quantization)
    found = CausalLMLoader(given, batch_tokens=256).memory(Once())
    loaded = load_causal_lm(given, batch_tokens=256).model.get_memory_footprint(
        return_buffers=False
    )
    assert found.weights == pytest.approx(loaded, rel=0.05)


def test_more_in_a_batch_takes_more(tiny_gpt2):
    small, large = (
        CausalLMLoader(checkpoint(tiny_gpt2), n).memory(Once()) for n in (1_000, 100_000)
    )
    assert small.weights == large.weights
    assert large.working > small.working


def test_a_model_fits_its_share_of_a_gpu_or_does_not():
    of_16_gib = Memory(weights=10 * 2**30, working=4 * 2**30)
    assert of_16_gib.fits("T4", 1.0) is True
    assert of_16_gib.fits("T4", 0.5) is False
    assert of_16_gib.fits("A10G", 0.5) is False
    assert of_16_gib.fits("H100", 0.5) is True
    assert of_16_gib.fits(None, 1.0) is None
    assert of_16_gib.fits("T4", 0.0) is None
    assert Memory(2**30 * GPU_GIB["T4"], 0).fits("T4", 1.0) is False
