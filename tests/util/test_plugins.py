"""Code from outside: what is registered when it is loaded, what is refused, how it travels."""

from __future__ import annotations

import importlib
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import programs

from raymia.attacks import registry
from raymia.evidence.answers import answer_names
from raymia.inputs.attack_list import name_attacks
from raymia.questions.base import evidence_key, registered
from raymia.spec import AuditSpec
from raymia.util import plugins
from raymia.util.errors import InputError

ATTACK = """
from dataclasses import dataclass
from raymia.attacks.base import Attack, register

@register
@dataclass(frozen=True)
class Mine(Attack):
    name, title, source, formula = {name!r}, "t", "s", "f"
    asks = {asks}
    needs = frozenset({needs})
    sign: float = 1.0

    def score(self, evidence):
        return self.sign * evidence.target.tokens.mean()
"""
QUESTION = """
import pyarrow as pa
from dataclasses import dataclass
from raymia.questions.base import Question, register_question
from raymia.questions.text import SUM_SCHEMA

@register_question
@dataclass(frozen=True)
class Backwards(Question):
    name, kind, version, schema = "backwards", {kind!r}, 1, SUM_SCHEMA
    words: int = 3

    def ask(self, model, items):
        return pa.Table.from_pylist([], schema=self.schema)

    def lay_out(self, table, ids):
        return None
"""


def attack(name: str = "mine", asks: str = "('tokens',)", needs: str = "()") -> str:
    return ATTACK.format(name=name, asks=asks, needs=needs)


def question(kind: str = "text.backwards") -> str:
    return QUESTION.format(kind=kind)


def with_line(content: str, line: str) -> str:
    """An attack or a question of which a line more is in its class."""
    return content.replace("    name,", f"    {line}\n    name,")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test loads is not another's."""
    before = {*plugins._loaded}
    yield
    for module in {*plugins._loaded} - before:
        plugins._forget(module)


def write(folder: Path, *parts: str, name: str = "own.py") -> str:
    file = folder / name
    file.write_text("\n".join(parts), encoding="utf-8")
    return str(file)


def key(name: str = "backwards") -> str:
    (kind,) = [kind for kind in registered("text") if kind.name == name]
    return evidence_key(kind(), "a model").hash


def test_a_file_registers_what_it_has_once(tmp_path: Path) -> None:
    file = write(tmp_path, question(), attack(asks="('tokens', 'backwards')"))
    (plugin,) = plugins.load_plugins([file])
    assert plugins.load_plugins([file, file]) == (plugin,)
    assert registry()["mine"].asks == ("tokens", "backwards")
    assert answer_names("text")[-1] == "backwards"
    assert "mine" not in registry("image")


def test_an_attack_from_outside_runs_only_where_it_is_named(tmp_path: Path) -> None:
    plugins.load_plugins([write(tmp_path, attack())])
    file = {"records": {"members": ["x"]}, "targets": [{"name": "t", "model": "m"}]}
    for listed, expected in ((None, False), (["loss", "mine"], True)):
        spec = AuditSpec.model_validate({**file, "attacks": listed})
        labels = {named.label for named in name_attacks(spec)}
        assert "loss" in labels
        assert ("mine" in labels) is expected


def test_a_module_registers_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, attack("from_module"), name="a_module_of_mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    (plugin,) = plugins.load_plugins(["a_module_of_mine"])
    assert (plugin.module, plugin.source) == ("a_module_of_mine", None)
    assert "from_module" in registry()


def test_a_file_that_changed_takes_the_place_of_what_it_was(tmp_path: Path) -> None:
    plugins.load_plugins([write(tmp_path, question(), attack("early"))])
    first = key()
    plugins.load_plugins([write(tmp_path, question(), attack("late"))])
    assert {"early", "late"} & {*registry()} == {"late"}
    assert key() != first


def test_the_key_is_of_the_code_and_not_of_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    plugins.load_plugins([write(tmp_path / "a", question())])
    first = key()
    plugins._forget(plugins.load_plugins([str(tmp_path / "a" / "own.py")])[0].module)
    plugins.load_plugins([write(tmp_path / "b", question())])
    assert key() == first


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (attack("loss"), "two attacks on text records are named 'loss': one of raymia, and one of"),
        (attack(asks="('token',)"), "asks 'token', and there is no such question on texts; did you "
         "mean 'tokens'? there are: tokens, neighbors"),
        (attack(asks="'tokens'"), "asks should be names, as ('name',), but is 'tokens'"),
        (with_line(attack(), "records = 'image'"), "attack 'mine': records should be names, as "
         "('name',), but is 'image'"),
        (with_line(attack(), "records = ()"), "attack 'mine': records should be names, as "
         "('name',), but is ()"),
        (with_line(question(), "records = ()"), "question 'backwards': records should be names, as "
         "('name',), but is ()"),
        (attack("my attack@x"), "attack 'my attack@x': its name should be of small letters, digits "
         "and _, but is 'my attack@x'"),
        (attack(needs="{'referense'}"), "needs 'referense', and there is no such need; did you "
         "mean 'reference'?"),
        (attack(asks="('terms',)"), "asks 'terms', and there is no such question on texts"),
        (attack().replace('"t", "s", "f"', 'None, "s", "f"'), "'mine' should say its title"),
        (question("text.tokens"), "the kind 'text.tokens' is one of raymia's own"),
        (question() + question().replace('"backwards", ', '"forwards", '), "question "
         "'forwards': the kind 'text.backwards' is that of the question 'backwards' of "),
        (question("Text/../x"), "its kind should be of small letters, digits and _"),
        (question().replace('"backwards", ', '"tokens", '), "two questions on text records"),
        (question().replace("def lay_out", "def lay"), "give it `lay_out`"),
        (with_line(question(), "records = 'image'"), "question 'backwards': records should be "
         "names, as ('name',), but is 'image'"),
        (with_line(question(), "families = 'causal'"), "families should be names, as ('name',)"),
        (with_line(question(), "records = ('image',)"), "question 'backwards': give it `families`, "
         "the kinds of models that can answer it, as frozenset({'autoencoder'}); questions on "
         "image records are for autoencoder, denoiser, pixels"),
        (question().replace("SUM_SCHEMA\n ", "pa.schema([])\n "), "its schema should have"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named "
         "'nothing_of_this_name' (line 1)"),
        ("\n1 +", "not valid Python: invalid syntax (line 2)"),
        ("\n\nraise RuntimeError('it broke')", "RuntimeError: it broke (line 3)"),
        ("import sys\nsys.exit(3)", "it ends Python by sys.exit; a plugin is imported"),
        (attack().replace("def score", "def scores"), "attack 'mine' lacks `score`, which it has"),
        (question().replace("def ask", "def asked"), "question 'backwards' lacks `ask`, which"),
        (question().replace(" 1, SUM", " True, SUM"), "a whole number from 1, but is True"),
        (question().replace(" 1, SUM", " 0, SUM"), "a whole number from 1, but is 0"),
        (question().replace(" 1, SUM", " 1.5, SUM"), "a whole number from 1, but is 1.5"),
        (question().replace(" 1, SUM", " '1', SUM"), "a whole number from 1, but is '1'"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_and_leaves_nothing(
    tmp_path: Path, content: str, says: str
) -> None:
    first = [attack("before_it")] if "(line" not in says else []
    known = [{*registry(records)} for records in ("text", "image")], answer_names("text")
    file = write(tmp_path, *first, content)
    with pytest.raises(InputError) as refused:
        plugins.load_plugins([file])
    (problem,) = refused.value.problems
    assert problem.startswith(f"plugin {file}: ")
    assert says in problem
    assert ([{*registry(r)} for r in ("text", "image")], answer_names("text")) == known


NO_ATTACK = attack().replace("@register", "")
REFUSED = "it registers no attack and no question; put @register above the class of an attack"


@pytest.mark.parametrize(
    "content", ["", "x = 1", NO_ATTACK, "from raymia.attacks.loss import Loss"]
)
def test_what_registers_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    file = write(tmp_path, content, name="says_nothing.py")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (file, "says_nothing"):
        with pytest.raises(InputError, match=f"^plugin {name}: {REFUSED}"):
            plugins.load_plugins([name])


def test_what_was_registered_before_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "with_parts", {"__init__": "from with_parts import one", "one": attack()})
    monkeypatch.syspath_prepend(tmp_path)
    assert len(plugins.load_plugins(["with_parts.one", "with_parts"])) == 2
    (tmp_path / "elsewhere").mkdir()
    for comment in ("# as it was", "# and as it is now"):
        file = write(tmp_path / "elsewhere", "from with_parts.one import Mine", comment)
        assert plugins.load_plugins([file])


def package(folder: Path, name: str, files: dict[str, str]) -> None:
    (folder / name).mkdir()
    for stem, content in files.items():
        write(folder / name, content, name=f"{stem}.py")


def test_the_key_of_a_package_is_of_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        package(folder, "whole", {
            "__init__": "from whole import asked", "helper": f"WORDS = {number}",
            "asked": "from whole.helper import WORDS" + question(),
        })  # fmt: skip
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            plugins.load_plugins(["whole"])
            keys.append(key())
        for module in ("whole.asked", "whole.helper", "whole"):
            plugins._forget(module)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    "line", ["import helper", "from helper import x", "def late():\n    import helper.more"]
)
@pytest.mark.parametrize("beside", ["helper.py", "helper/__init__.py", "helper/more.py"])
def test_what_imports_code_beside_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str, line: str
) -> None:
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).touch()
    file = write(tmp_path, attack(), line, name="leans_on_it.py")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (file, "leans_on_it"):
        with pytest.raises(InputError) as refused:
            plugins.load_plugins([name])
        assert f"plugin {name}: line " in str(refused.value)
        assert "imports 'helper', which lies beside it: its code is not sent" in str(refused.value)


@pytest.mark.parametrize(
    ("marked", "line", "name"),
    [
        (True, "import in_folder.helper", "in_folder/own.py"),
        (False, "import in_folder.helper", "in_folder/own.py"),
        (False, "from in_folder.helper import x", "in_folder.own"),
        (False, "from . import helper", "in_folder.own"),
    ],
)
def test_a_part_of_a_folder_is_refused_unless_the_folder_is_a_package_and_it_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool, line: str, name: str
) -> None:
    files = {"helper": "x = 1", "own": f"{line}\n{attack()}"}
    package(tmp_path, "in_folder", files | ({"__init__": ""} if marked else {}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"line 1 imports '.*', which lies beside it"):
        plugins.load_plugins([name])
    (tmp_path / "in_folder" / "__init__.py").touch()
    importlib.invalidate_caches()
    sys.modules.pop("in_folder", None)
    assert plugins.load_plugins(["in_folder.own"])
    for module in ("in_folder.helper", "in_folder"):
        sys.modules.pop(module)


def test_what_lies_beside_a_file_and_is_not_imported_is_no_matter(tmp_path: Path) -> None:
    for name in ("helper.py", "json.py", "numpy"):
        (tmp_path / name).mkdir() if name == "numpy" else (tmp_path / name).touch()
    assert plugins.load_plugins([write(tmp_path, "import json, numpy", attack())])


def test_what_is_installed_beside_an_installed_module_is_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine-1.0.dist-info").mkdir()
    package(tmp_path, "a_library_of_mine", {"__init__": ""})
    write(tmp_path, "import a_library_of_mine", attack("installed"), name="an_installed_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.load_plugins(["an_installed_module"])
    assert "installed" in registry()


def test_two_plugins_whose_attacks_have_one_name_are_both_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    for file in (first, second):
        shutil.copy(write(tmp_path, attack("mine")), file)
    with pytest.raises(InputError, match=f"one of {first}, and one of {second}; rename one"):
        plugins.load_plugins([str(first), str(second)])


def test_all_that_cannot_be_loaded_is_said_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        plugins.load_plugins([str(tmp_path / "gone.py"), "no_module_of_this_name"])
    file, module = refused.value.problems
    assert "gone.py: the file cannot be read" in file
    assert "plugin no_module_of_this_name: cannot be imported" in module


def test_where_a_module_goes_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_attacks").mkdir()
    (tmp_path / "broken_attacks" / "__init__.py").write_text("from broken_attacks import inner\n")
    (tmp_path / "broken_attacks" / "inner.py").write_text("\nraise TypeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"TypeError: boom \(inner.py line 2\)$"):
        plugins.load_plugins(["broken_attacks"])


def elsewhere(content: bytes, code: str, *path: Path) -> str:
    """What another process prints that is given an object."""
    done = programs.run(
        f"import pickle, sys\nsys.path[:0] = {[*map(str, path)]}\n"
        f"given = pickle.loads({content!r})\n{code}"
    )
    return done.stdout + done.stderr


def test_a_file_travels_with_its_objects_to_where_it_is_not(tmp_path: Path) -> None:
    file = write(tmp_path, question(), attack())
    (plugin,) = plugins.load_plugins([file])
    (kind,) = [kind for kind in registered("text") if kind.name == "backwards"]
    sent = kind(words=5), registry()["mine"](sign=-1.0), plugin
    assert pickle.loads(pickle.dumps(sent)) == sent
    content, expected = pickle.dumps(sent), key()
    Path(file).unlink()
    printed = elsewhere(
        content,
        "from raymia.questions.base import evidence_key\n"
        "asked, attack, plugin = given\n"
        "print(asked.words, attack.sign, evidence_key(asked, 'a model').hash)\n"
        "from raymia.attacks import registry\nprint('mine' in registry())",
    )
    assert printed.split() == ["5", "-1.0", expected, "True"]


def test_a_machine_without_the_same_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "here", attack("travels"), name="a_module_that_travels.py")
    write(tmp_path / "there", attack("travels"), "# other code", name="a_module_that_travels.py")
    with monkeypatch.context() as here:
        here.syspath_prepend(tmp_path / "here")
        plugins.load_plugins(["a_module_that_travels"])
        content = pickle.dumps(registry()["travels"]())
    assert elsewhere(content, "print(given.name)", tmp_path / "here").split() == ["travels"]
    assert "this machine has other code" in elsewhere(content, "", tmp_path / "there")
    assert "install it on every machine" in elsewhere(content, "")


def test_code_typed_in_at_a_prompt_has_no_hash() -> None:
    with pytest.raises(ValueError, match="in no file"):
        plugins.code_digest(type("Typed", (), {"__module__": "__main__"}))
