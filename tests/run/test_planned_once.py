"""An audit looks into its store once for each key before models are asked, and once after."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from small_audit import Models, console, passages, write_small_audit, write_texts

from raymia.engine.here.executor import LocalExecutor
from raymia.evidence.store import EvidenceStore
from raymia.plan import planning
from raymia.results.result import RunResult
from raymia.run import audit as audit_module
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec


class Looks:
    """How often each key was looked up, and plans were made, before models were asked and after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.plans = 0
        present, ask, plan = EvidenceStore.present, LocalExecutor.ask, planning.plan_audit
        self._now = self.before

        def looked(store, key, *rest):
            self._now[key.hash] += 1
            return present(store, key, *rest)

        def asked(executor, *rest):
            try:
                return ask(executor, *rest)
            finally:
                self._now = self.after

        def planned(*given):
            self.plans += 1
            return plan(*given)

        patch.setattr(EvidenceStore, "present", looked)
        patch.setattr(LocalExecutor, "ask", asked)
        patch.setattr(audit_module, "plan_audit", planned)


def run(file: Path) -> tuple[RunResult, Looks]:
    with pytest.MonkeyPatch.context() as patch:
        looks = Looks(patch)
        result = run_audit(load_spec(file), console())
    assert result.complete
    assert looks.plans == 1
    return result, looks


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, models: Models
) -> tuple[Path, RunResult, Looks]:
    """The folder of an audit, and what it looked up when nothing was stored yet."""
    folder, texts = tmp_path_factory.mktemp("first"), passages()
    file = write_small_audit(
        folder, models, members=texts[:4], non_members=texts[24:28], self_prompt=True
    )
    return folder, *run(file)


@pytest.fixture
def file(first: tuple[Path, RunResult, Looks], tmp_path: Path) -> Path:
    """The audit file, in a copy of the folder."""
    return shutil.copytree(first[0], tmp_path / "copy") / "audit.yaml"


def keys(result: RunResult) -> set[str]:
    return {key for stage in result.stages for key in stage.key.split()}


def test_each_key_is_looked_up_once_before_and_once_after(
    first: tuple[Path, RunResult, Looks], file: Path
) -> None:
    _, result, looks = first
    assert not looks.before, "a listing tells that nothing is stored"
    assert looks.after == Counter(keys(result)), "something was missing of each"

    again, looks = run(file)
    assert looks.before == Counter(keys(again)), "each once, and nothing was asked"
    assert not looks.after

    write_texts(file.parent / "non_members.jsonl", passages()[24:29])
    more, looks = run(file)
    assert looks.before == looks.after == Counter(keys(more))


def test_what_is_not_missing_is_not_looked_up_again(
    first: tuple[Path, RunResult, Looks], file: Path
) -> None:
    stages = first[1].stages
    of_target = next(s.key.split() for s in stages if s.name == "target:tuned")
    store = file.parent / "store"
    for part in [p for key in of_target for p in store.glob(f"evidence/*/{key}/*.parquet")]:
        part.unlink()
    _, looks = run(file)
    assert looks.before == Counter(keys(first[1]))
    assert looks.after == Counter(of_target)
