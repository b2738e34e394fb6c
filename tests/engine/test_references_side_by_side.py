"""References are made side by side, as many at a time as their pool has actors."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raymia.engine.board import Counts
from raymia.engine.on_ray.cluster import Cluster
from raymia.engine.on_ray.tasks import outcomes
from raymia.engine.prepare import Making, makings, reference_maker
from raymia.evidence.store import EvidenceStore
from raymia.plan.stages import Preparation
from raymia.spec import PoolSpec
from raymia.util.errors import NothingWrittenError, RaymiaError


@dataclass
class Made:
    """A recipe that notes what it did."""

    key: str
    material_key: str
    error: RaymiaError | None = None
    is_written: bool = True
    done: list[str] = field(default_factory=list)
    target: Any = None
    base: Any = None

    def make(self, store: EvidenceStore, pool: PoolSpec, report: Any) -> None:
        del pool, report
        self.done.append(self.key)
        if self.is_written and store.prepared_facts(self.material_key) is None:
            place = Path(store.folder.url) / f"made-{self.material_key}"
            place.mkdir(parents=True)
            (place / "facts.json").write_text("{}")
            store.commit_prepared(self.material_key, place)
        if self.error is not None:
            raise self.error


def named(*recipes: Made) -> list[tuple[str, Preparation]]:
    return [(f"t{n}", Preparation("own", recipe, ready=False)) for n, recipe in enumerate(recipes)]


def test_each_is_made_once_and_those_of_one_material_one_after_another() -> None:
    first, same, other = Made("a", "texts"), Made("a", "texts"), Made("c", "others")
    tuned_longer = Made("b", "texts")
    found = makings(named(first, same, other, tuned_longer))
    assert [[(name, recipe.key) for name, recipe in one.recipes] for one in found] == [
        [("own:t0", "a"), ("own:t3", "b")],
        [("own:t2", "c")],
    ]
    assert found[0].name == "own:t0"


@pytest.mark.parametrize("is_written", [True, False])
def test_what_fails_is_told_and_a_target_that_writes_nothing_is_not_asked_again(
    tmp_path: Path, is_written: bool
) -> None:
    why = NothingWrittenError("the target wrote nothing")
    one, two = Made("a", "texts", why, is_written), Made("b", "texts")
    making = Making("own:t", (("own:t", one), ("longer:t", two)))
    failed = reference_maker(making, PoolSpec(), str(tmp_path / "store"), Counts())()
    assert failed == ({"a": why} if is_written else {"a": why, "b": why})
    assert two.done == (["b"] if is_written else [])


@pytest.mark.usefixtures("local_ray")
def test_tasks_run_so_many_at_a_time_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    def task(number: int) -> Any:
        def work() -> int:
            (tmp_path / f"{number}.begun").write_text(str(time.time()))
            time.sleep(0.5)
            (tmp_path / f"{number}.ended").write_text(str(time.time()))
            if number == 1:
                raise RaymiaError("this one cannot")
            return number

        return work

    pool, cluster = PoolSpec(cpus=0.01), Cluster(is_local=True)
    found = dict(outcomes([task(number) for number in range(4)], pool, cluster, 2))
    assert [found[n] for n in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(found[1], RaymiaError)
    assert str(found[1]) == "this one cannot"
    begun, ended = (
        [float((tmp_path / f"{n}.{what}").read_text()) for n in range(4)]
        for what in ("begun", "ended")
    )
    at_once = [sum(b <= one < e for b, e in zip(begun, ended, strict=True)) for one in begun]
    assert max(at_once) == 2
