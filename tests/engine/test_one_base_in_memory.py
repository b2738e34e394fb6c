"""A base is in memory once, whatever number of adapters is scored on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_audit import BASE, NEIGHBORS, Models, console, passages, reweigh, write_small_audit
from tiny_models import checkpoint, save_adapter

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.family import load_causal_lm
from raymia.plan.planning import plan_audit
from raymia.plan.pools import pools_of
from raymia.records.texts import record_id
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

pytestmark = pytest.mark.usefixtures("local_ray")

TARGETS = 3
HALF = 3  # members, and as many non-members

COUNTED = """
from pathlib import Path
from transformers import GPT2LMHeadModel

class Counted(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        with Path(config.loads_file).open("a") as file:
            file.write("loaded\\n")
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped base, with code of its own that adds a line to a file whenever it is loaded."""
    folder = tmp_path_factory.mktemp("models") / "counted"
    shutil.copytree(BASE, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {"AutoModelForCausalLM": "counted.Counted"},
        "loads_file": str(folder.parent / "loads.txt"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "counted.py").write_text(COUNTED)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The base, and one whose weights all differ from it."""
    other = tmp_path_factory.mktemp("models") / "other"
    reweigh(BASE, other, lambda tensor: tensor * 0.97)
    return Models(BASE, other, other)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [save_adapter(folder / f"epoch-{n}", BASE, seed=n) for n in range(TARGETS)]


def sweep(folder: Path, models: Models, base: Path, adapters: list[Path], **changes: Any) -> Path:
    texts = passages()
    model = {"model": str(base), "trust_remote_code": True}
    targets = [{"name": f"epoch-{n}", "adapter": str(a), **model} for n, a in enumerate(adapters)]
    settings = {"targets": targets, "references": {"base": {**model, "max_tokens": 64}}, **changes}
    return write_small_audit(
        folder,
        models,
        engine="ray",
        members=texts[:HALF],
        non_members=texts[24 : 24 + HALF],
        **settings,
    )


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, models: Models, counted: Path, adapters: list[Path]
) -> tuple[Path, RunResult, int]:
    """A sweep over adapters with their base as reference, and how often the base was loaded."""
    loads = counted.parent / "loads.txt"
    loads.unlink(missing_ok=True)
    folder = tmp_path_factory.mktemp("sweep")
    result = run_audit(load_spec(sweep(folder, models, counted, adapters)), console())
    return folder, result, len(loads.read_text().splitlines())


def test_sweep_over_adapters_loads_their_base_once(swept: tuple[Path, RunResult, int]) -> None:
    _, result, loads = swept
    assert result.complete
    assert loads == 1


def test_stages_are_counted_one_by_one_all_the_same(swept: tuple[Path, RunResult, int]) -> None:
    _, result, _ = swept
    records = 2 * HALF
    assert {stage.name: stage.asked for stage in result.stages} == {
        "neighbors": records * NEIGHBORS,
        "reference:base": records * (1 + NEIGHBORS),
        **{f"target:epoch-{n}": records * (2 + NEIGHBORS) for n in range(TARGETS)},
    }
    assert all(stage.failed == 0 and stage.seconds > 0 for stage in result.stages)


def test_answers_are_those_of_models_loaded_one_by_one(
    swept: tuple[Path, RunResult, int], adapters: list[Path]
) -> None:
    spec = load_spec(swept[0] / "audit.yaml")
    store = EvidenceStore(spec.store)
    plans = plan_audit(resolve_inputs(spec), store)
    stages = [*(plan.target for plan in plans), plans[0].references["base"]]
    texts = [*passages()[:HALF], *passages()[24 : 24 + HALF]]
    seen = []
    for stage, adapter in zip(stages, [*adapters, None], strict=True):
        assert stage.to_ask == 0, "the evidence lies under the keys of each checkpoint alone"
        table = store.read(stage.questions[0].key)
        assert table is not None
        answers = {row["record_id"]: row for row in table.to_pylist()}
        alone = load_causal_lm(
            checkpoint(
                BASE,
                adapter=None if adapter is None else str(adapter),
                max_tokens=64 if adapter is None else None,
            ),
            batch_tokens=1_024,
        )
        for text, expected in zip(texts, alone.answer(texts, moments=True), strict=True):
            row = answers[record_id(text)]
            for column in ("log_prob", "mean_log_prob", "std_log_prob"):
                np.testing.assert_allclose(
                    row[column], getattr(expected, column), rtol=0, atol=1e-5
                )
        seen.append(answers[record_id(texts[0])]["log_prob"][0])
    assert len(set(seen)) == TARGETS + 1, "no adapter changed anything"


# --------------------------------------------------------- what goes with what


def streams(file: Path) -> list[list[list[str]]]:
    """Names of stages by pool by stream."""
    spec = load_spec(file)
    plan = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    return [[[s.name for s in p.stages] for p in pools_of(stages)] for stages in plan.streams]


def test_adapters_and_their_base_are_one_pool_and_one_stream(
    tmp_path: Path, models: Models, adapters: list[Path]
) -> None:
    assert streams(sweep(tmp_path, models, BASE, adapters)) == [
        [["neighbors"], ["target:epoch-0", "reference:base", "target:epoch-1", "target:epoch-2"]]
    ]


def test_targets_on_one_base_come_together_wherever_they_stand_in_the_file(
    tmp_path: Path, models: Models, adapters: list[Path]
) -> None:
    base = {"model": str(BASE), "trust_remote_code": True}
    first, second, third = ({**base, "adapter": str(a), "name": a.name} for a in adapters)
    alone = {"name": "alone", "model": str(models.other)}
    file = sweep(tmp_path, models, BASE, [], targets=[first, alone, second, third])
    spec = load_spec(file)
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    plan = plan_audit(inputs, store)
    assert [target.name for target in plan.in_loading_order] == [
        "epoch-0",
        "epoch-1",
        "epoch-2",
        "alone",
    ]
    assert [[s.name for s in p.stages] for stages in plan.streams for p in pools_of(stages)] == [
        ["neighbors"],
        ["target:epoch-0", "reference:base", "target:epoch-1", "target:epoch-2"],
        ["target:alone"],
    ]
    assert list(inputs.targets) == ["epoch-0", "alone", "epoch-1", "epoch-2"]


def test_whole_checkpoints_go_one_after_another(tmp_path: Path, models: Models) -> None:
    """Two of them at once would need the memory of two."""
    targets = [{"name": n, "model": str(m)} for n, m in (("a", models.other), ("b", models.target))]
    references = {"base": {"model": str(BASE), "dtype": "bfloat16"}}
    settings = {"targets": targets, "references": references, "neighbors": None}
    assert streams(sweep(tmp_path, models, BASE, [], **settings)) == [
        [["target:a"], ["reference:base"]], [["target:b"]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "other", [{"dtype": "bfloat16"}, {"quantization": "int8"}], ids=["dtype", "quantization"]
)
def test_other_weights_are_another_pool(
    tmp_path: Path, models: Models, adapters: list[Path], other: dict[str, str]
) -> None:
    references = {"base": {"model": str(BASE), "trust_remote_code": True, **other}}
    assert streams(
        sweep(tmp_path, models, BASE, adapters[:1], references=references, neighbors=None)
    ) == [[["target:epoch-0"], ["reference:base"]]]


def test_roles_on_other_machines_are_other_pools(
    tmp_path: Path, models: Models, adapters: list[Path]
) -> None:
    for settings, together in (
        ({"resources": {"big": 1}}, False), ({"gpus": 0.5}, False), ({"actors": 3}, True),
    ):  # fmt: skip
        file = sweep(
            tmp_path, models, BASE, adapters[:1], neighbors=None, resources={"target": settings}
        )
        ((first, *more),) = streams(file)
        assert (first == ["target:epoch-0", "reference:base"]) is together, settings
        assert bool(more) is not together


def test_shared_pool_is_as_large_as_the_larger_role(
    tmp_path: Path, models: Models, adapters: list[Path]
) -> None:
    file = sweep(tmp_path, models, BASE, adapters[:1], resources={"reference": {"actors": 3}})
    spec = load_spec(file)
    (stages,) = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store)).streams
    assert [pool.spec.actors for pool in pools_of(stages)] == [1, 3]


def test_target_that_is_its_own_reference_is_asked_once(tmp_path: Path, models: Models) -> None:
    model = {"model": str(BASE)}
    targets, references = [{"name": "one", **model}], {"base": model, "again": model}
    assert streams(
        sweep(tmp_path, models, BASE, [], targets=targets, references=references, neighbors=None)
    ) == [[["target:one"]]]
