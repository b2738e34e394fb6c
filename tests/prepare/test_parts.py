"""What a target writes is kept in parts: workers write at the same time, and little is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chat_templates import CHATML
from small_self_prompt import made, small_recipe

from raymia.evidence.store import EvidenceStore
from raymia.models.causal.training import Training
from raymia.prepare import parts, writer
from raymia.prepare.parts import Parts, PartsMissing, Share
from raymia.prepare.self_prompt import stored_texts
from raymia.spec import PoolSpec
from raymia.util.errors import RaymiaError

CHAT = Training("chat", "assistant", template=CHATML)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts the target was given at each time."""
    found: list[int] = []
    go_on = writer.continue_tokens

    def noting(target: Any, prompts: Any, *rest: Any, **settings: Any) -> Any:
        found.append(len(prompts))
        return go_on(target, prompts, *rest, **settings)

    monkeypatch.setattr(writer, "continue_tokens", noting)
    return found


def test_after_a_kill_what_is_missing_is_written_and_the_parts_go(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = small_recipe(generation_batch=2), EvidenceStore(str(tmp_path / "killed"))
    whole = made(recipe, tmp_path / "whole")
    assert asked == [2, 2, 2, 2]

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "_kept", lambda *_: killed() if len(asked) == 3 else None)
        with pytest.raises(KeyboardInterrupt):
            made(recipe, store.folder.url)
    left = store.folder.names("prepared", "")
    assert len(left) == 3
    assert {*left} <= {*recipe.part_keys}, "so that `raymia store gc` keeps them"
    asked.clear()
    assert made(recipe, store.folder.url) == whole
    assert asked == [2]
    assert {*store.folder.names("prepared", "")} == {recipe.key, recipe.material_key}


@pytest.mark.parametrize("training", [None, CHAT], ids=["texts", "answers"])
@pytest.mark.parametrize("prompts", ["p.jsonl", "none"])
def test_workers_that_share_write_what_one_does(
    training: Training | None, prompts: str, tmp_path: Path, asked: list[int]
) -> None:
    if training is not None and prompts != "none":
        pytest.skip("of such prompts the answers are written as the texts are")
    recipe = small_recipe(training, prompts=prompts, max_tokens=48, generation_batch=2)
    whole = made(recipe, tmp_path / "whole")
    alone, store = sum(asked), EvidenceStore(str(tmp_path / "shared"))
    assert recipe.rounds == (2 if training is not None else 1)
    asked.clear()
    for done in range(recipe.rounds):
        for number in range(3):
            try:
                recipe.write_share(Share(number, 3), store, PoolSpec(), lambda _: lambda *_: None)
            except PartsMissing:
                is_last = number == 2 and done == recipe.rounds - 1
                assert not is_last, "it has all"
    assert sum(asked) == alone
    asked.clear()
    assert made(recipe, store.folder.url) == whole
    assert asked == []
    assert recipe.shares == 4


def test_seconds_are_those_of_all_workers(tmp_path: Path) -> None:
    store, batches = EvidenceStore(str(tmp_path)), [[0, 1], [2]]

    def write(some: Any, tell: Any) -> pa.Table:
        del tell
        return pa.table({"n": [number for batch in some for number in batch]})

    first, second = Parts("k", store, Share(0, 2)), Parts("k", store, Share(1, 2))
    with pytest.raises(PartsMissing):
        first.written("w", batches, write, lambda *_: None)
    assert second.written("w", batches, write, lambda *_: None)["n"].to_pylist() == [0, 1, 2]
    facts = [store.prepared_facts(parts.part_key("k", "w", number)) for number in range(2)]
    assert second.seconds == pytest.approx(sum(one["seconds"] for one in facts if one))


def test_a_part_that_vanishes_while_it_is_read_is_written_again_and_a_changed_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, batches, written = EvidenceStore(str(tmp_path)), [[0], [1]], []

    def write(some: Any, tell: Any) -> pa.Table:
        del tell
        written.append(some)
        return pa.table({"n": [batch[0] for batch in some]})

    def all_of() -> list[int]:
        table = Parts("k", EvidenceStore(str(tmp_path))).written(
            "w", batches, write, lambda *_: None
        )
        return table["n"].to_pylist()

    assert all_of() == [0, 1]
    key, prepared_path = parts.part_key("k", "w", 1), EvidenceStore.prepared_path

    def vanishing(self: EvidenceStore, one: str) -> Path:
        path = prepared_path(self, one)
        if one == key and len(written) == 2:
            store.remove_prepared([key])
        return path

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "prepared_path", vanishing)
        assert all_of() == [0, 1]
    assert len(written) == 3
    (tmp_path / "prepared" / key / parts.PART_FILE).write_bytes(b"other")
    with pytest.raises(RaymiaError, match=rf"{key}: part\.parquet: not as it was made; delete"):
        all_of()


def test_parts_that_answer_other_questions_are_written_again(tmp_path: Path) -> None:
    store, batches = EvidenceStore(str(tmp_path)), [[0], [1]]

    def answers(questions: list[str]) -> list[str]:
        def write(some: Any, tell: Any) -> pa.Table:
            del tell
            return pa.table({"a": [f"to {questions[batch[0]]}" for batch in some]})

        asked = "".join(questions)
        return (
            Parts("k", store).written("w", batches, write, lambda *_: None, asked)["a"].to_pylist()
        )

    assert answers(["x", "y"]) == ["to x", "to y"]
    assert answers(["x", "z"]) == ["to x", "to z"]
    assert answers(["x", "z"]) == ["to x", "to z"]


def test_of_two_runs_that_write_at_once_both_have_what_is_stored(tmp_path: Path) -> None:
    """Texts need not be the same twice: a server's draws, or 16 bits on another device."""
    store, batches = EvidenceStore(str(tmp_path)), [[0]]

    def first(some: Any, tell: Any) -> pa.Table:
        del some, tell
        return pa.table({"a": ["first"]})

    def second(some: Any, tell: Any) -> pa.Table:
        Parts("k", store).written("w", batches, first, tell)
        del some
        return pa.table({"a": ["second"]})

    parts = Parts("k", store)
    assert parts.written("w", batches, second, lambda *_: None)["a"].to_pylist() == ["first"]


def test_there_are_few_parts_whatever_is_written() -> None:
    found = parts._parts_of([[number] for number in range(100)])
    assert len(found) == parts.MAX_PARTS
    assert [batch for part in found for batch in part] == [[number] for number in range(100)]
    assert {len(part) for part in found} == {6, 7}
    assert parts._parts_of([[0, 1]]) == [[[0, 1]]]
    assert [parts.count_parts(items, 64) for items in (1, 65, 10**6)] == [1, 2, 16]


@pytest.mark.usefixtures("local_ray")
def test_a_pool_of_targets_that_no_machine_holds_leaves_the_writing_to_that_of_references(
    tmp_path: Path,
) -> None:
    """As where the target's own answers are stored, and a reference is added on another machine."""
    from rich.console import Console

    from raymia.engine.on_ray.cluster import Cluster
    from raymia.engine.on_ray.executor import RayExecutor
    from raymia.engine.prepare import Making
    from raymia.spec import ResourcesSpec

    recipe, url = small_recipe(generation_batch=2), str(tmp_path / "store")
    resources = ResourcesSpec(target={"actors": 4, "gpus": 1}, reference={"cpus": 0.01})
    executor = RayExecutor(Cluster(is_local=True), resources, url, Console(quiet=True))
    with executor.reporting() as board:
        failed = executor.make([Making("own:t", (("own:t", recipe),))], resources.reference, board)
    assert failed == {}
    assert stored_texts(recipe, EvidenceStore(url)) is not None


@pytest.mark.usefixtures("local_ray")
def test_all_workers_of_the_targets_pool_write(tmp_path: Path) -> None:
    from rich.console import Console

    from raymia.engine.on_ray.cluster import Cluster
    from raymia.engine.on_ray.executor import RayExecutor
    from raymia.engine.prepare import Making
    from raymia.spec import ResourcesSpec

    recipe, url = small_recipe(generation_batch=2), str(tmp_path / "store")
    whole = made(recipe, tmp_path / "whole")
    pools = {name: {"cpus": 0.01} for name in ("paraphraser", "reference")}
    resources = ResourcesSpec(target={"actors": 2, "cpus": 0.01}, **pools)
    executor = RayExecutor(Cluster(is_local=True), resources, url, Console(quiet=True))
    with executor.reporting() as board:
        assert (
            executor.make([Making("own:t", (("own:t", recipe),))], resources.reference, board) == {}
        )
        lines = board.snapshot()
    assert {name: line.done for name, line in lines.items() if "write" in name} == {
        "write texts: own:t, 1 of 2": 4,
        "write texts: own:t, 2 of 2": 4,
        "write texts: own:t": 8,
    }
    assert stored_texts(recipe, EvidenceStore(url)) == whole
