"""What goes wrong in a worker reaches the person as one readable message."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from small_audit import BASE, Models, console, passages, reweigh, write_small_audit, write_texts

from raymia.engine.base import engine
from raymia.engine.on_ray.failures import own_error
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.run.asking import ask
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from raymia.util.errors import InputError, RaymiaError

pytestmark = pytest.mark.usefixtures("local_ray")

NOISE = ("Traceback", "ray::", "DataContext", "\x1b[", 'File "')


def assert_readable(error: RaymiaError, printed: Any) -> None:
    assert [noise for noise in NOISE if noise in str(error)] == []
    assert "Traceback" not in printed.err + printed.out
    assert 'File "' not in printed.err + printed.out


def ask_all(inputs: Inputs, url: str) -> None:
    store = EvidenceStore(url)
    plan = plan_audit(inputs, store)
    with engine(inputs.spec.resources, url, console()) as start:
        ask(plan, store, start)


def test_a_checkpoint_that_changed_since_the_plan_answers_nothing(
    tmp_path: Path, models: Models, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "target"
    shutil.copytree(models.target, checkpoint)
    own = replace(models, target=checkpoint)
    texts = passages()
    file = write_small_audit(
        tmp_path, own, engine="ray", members=texts[:3], non_members=texts[24:27],
        references=None, neighbors=None,
    )  # fmt: skip
    spec = load_spec(file)
    inputs = resolve_inputs(spec)
    reweigh(models.other, checkpoint, lambda tensor: tensor)
    capfd.readouterr()
    with pytest.raises(RaymiaError) as caught:
        ask_all(inputs, spec.store)
    assert str(caught.value).startswith(
        f"{checkpoint}: these are not the files that the audit was planned with"
    )
    assert_readable(caught.value, capfd.readouterr())
    assert not list((tmp_path / "store").rglob("*.parquet"))


def test_prompts_too_short_for_self_prompting_are_refused_before_there_are_workers(
    tmp_path: Path, models: Models, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = passages()
    prompts = write_texts(tmp_path / "prompts.jsonl", ["It is", "She was"])
    file = write_small_audit(
        tmp_path, models, engine="ray", members=texts[:3], non_members=texts[24:27], neighbors=None,
        references={"base": {"model": str(BASE)},
                    "self_prompt": {"kind": "self_prompt", "prompts": prompts}},
    )  # fmt: skip
    capfd.readouterr()
    with pytest.raises(InputError) as caught:
        run_audit(load_spec(file), console())
    assert str(caught.value) == (
        "references.self_prompt.prompts: not one of 2 prompts has 16 tokens; "
        "give longer prompts or a smaller prompt_tokens"
    )
    assert caught.value.problems == [str(caught.value)]
    assert_readable(caught.value, capfd.readouterr())


@pytest.mark.parametrize(
    ("error", "is_original", "said"),
    [
        (OSError(28, "No space left"), True, "OSError: [Errno 28] No space left"),
        (OSError(28, "No space left"), False, "OSError: [Errno 28] No space left"),
        (ValueError("a shape of 3\nand more"), True, "ValueError: a shape of 3"),
        (AssertionError(), True, "AssertionError"),
    ],
)
def test_an_error_of_a_library_is_told_without_the_advice_that_ray_adds(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_original: bool, said: str
) -> None:
    def fails(_: Any) -> Any:
        raise error

    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "raise_original_map_exception", is_original)
    with pytest.raises(Exception, match="ray::") as caught:
        ray.data.range(1).map_batches(fails).materialize()
    assert str(own_error(caught.value)) == f"a worker failed: {said}"
