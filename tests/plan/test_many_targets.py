"""A plan of many targets reads what they share once, and looks at each a few times."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from io import StringIO

import pytest
from benchmarks.many_targets import save_adapters
from rich.console import Console
from small_inputs import audit
from tiny_models import PARAPHRASER

from raymia.cli.plan import audit_plan
from raymia.modalities.resolve import resolve_inputs
from raymia.models.loaders import Sharing
from raymia.models.tokenizers import _loaded
from raymia.report.alike import shorten

MANY = 500
READS = 8
"""Of one file in a plan: to check it, to hash it, for its tokens, its memory and its pool."""

_watching: list[Counter[str]] = []


def _note(event, arguments):
    if event == "open" and _watching and isinstance(arguments[0], str):
        _watching[-1][arguments[0]] += 1


sys.addaudithook(_note)


@contextmanager
def reads_counted():
    """How often each file was opened by Python."""
    _watching.append(Counter())
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


@pytest.fixture
def loads(monkeypatch):
    """Folders of which transformers loaded a tokenizer."""
    from transformers import AutoTokenizer

    _loaded.cache_clear()
    real, found = AutoTokenizer.from_pretrained, []

    def counted(path, **options):
        found.append(path)
        return real(path, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    return found


def printed(spec):
    console = Console(width=160, file=StringIO())
    console.print(audit_plan(spec))
    return console.file.getvalue()


def of_one_folder(tmp_path, model, **changes):
    rows = [f'{{"name": "run-{n}", "path": "{model}"}}\n' for n in range(MANY)]
    (tmp_path / "names.jsonl").write_text("".join(rows))
    targets = [{"manifest": str(tmp_path / "names.jsonl")}]
    return audit(tmp_path / "audit", model, PARAPHRASER, targets=targets, **changes)


def of_adapters(tmp_path, model, **changes):
    save_adapters(MANY, model, tmp_path / "adapters")
    targets = [{"model": str(model), "adapters": f"{tmp_path}/adapters/*"}]
    return audit(tmp_path / "audit", model, PARAPHRASER, targets=targets, **changes)


@pytest.mark.long
@pytest.mark.parametrize("made", [of_one_folder, of_adapters])
def test_no_file_is_read_more_often_the_more_targets_there_are(tmp_path, tiny_gpt2, loads, made):
    spec = made(tmp_path, tiny_gpt2, references={"base": {"model": str(tiny_gpt2)}})
    with reads_counted() as reads:
        text = printed(spec)
    assert loads == [str(tiny_gpt2)]
    inside = {name: times for name, times in reads.items() if str(tiny_gpt2) in name}
    assert inside
    assert max(inside.values()) <= READS
    of_one = {name: times for name, times in reads.items() if "/adapters/" in name}
    assert (made is of_one_folder) == (not of_one)
    assert max(of_one.values(), default=0) <= READS
    # Of names of one folder the first asks, and the others have all from it.
    assert f"target: {MANY - (4 if made is of_one_folder else 3)} more" in text


def test_a_tokenizer_of_other_content_is_loaded_for_itself(tmp_path, tiny_gpt2, loads):
    other, copy = (shutil.copytree(tiny_gpt2, tmp_path / name) for name in ("other", "copy"))
    settings = other / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", '{"cls_token": "<s>",', 1))
    folders = [tiny_gpt2, other, copy]
    targets = [{"name": f"t{n}", "model": str(folder)} for n, folder in enumerate(folders)]
    printed(audit(tmp_path, tiny_gpt2, PARAPHRASER, targets=targets, references=None,
                  attacks=["loss"]))  # fmt: skip
    assert loads == [str(tiny_gpt2), str(other)]


@pytest.mark.long
def test_pools_are_found_without_comparing_all_targets(tmp_path, tiny_gpt2, monkeypatch):
    real, calls = Sharing.joined, []

    def counted(self, other):
        calls.append(other)
        return real(self, other)

    monkeypatch.setattr(Sharing, "joined", counted)
    printed(of_adapters(tmp_path, tiny_gpt2, references=None, attacks=["loss"]))
    assert MANY <= len(calls) <= 8 * MANY


def test_messages_name_a_few_of_many_targets(tmp_path, tiny_gpt2):
    inputs = resolve_inputs(
        of_one_folder(tmp_path, tiny_gpt2, references={"same": {"model": str(tiny_gpt2)}})
    )
    assert len(inputs.targets) == MANY
    text = " ".join(printed(inputs.spec).split())  # however its lines are broken
    assert "is the same model as targets 'run-0', 'run-1', " in text
    assert f"and {MANY - 8} more: attacks with it can tell nothing there" in text


def test_rows_that_are_alike_are_shown_as_a_few():
    rows = [("neighbors", "m", "9"), *((f"target:{n}", f"m{n}", "1") for n in range(30)),
            ("target:last", "m", "2"), ("reference:a", "m", "1")]  # fmt: skip
    assert [list(row) for row in shorten(rows, names=2)] == [
        ["neighbors", "m", "9"],
        ["target:0", "m0", "1"], ["target:1", "m1", "1"], ["target:2", "m2", "1"],
        ["target: 27 more", "", "1"],
        ["target:last", "m", "2"], ["reference:a", "m", "1"],
    ]  # fmt: skip
    few = rows[:15]
    assert list(shorten(few, names=2)) == few
