"""The recipes of CONTRIBUTING.md, as pasted: from a package that is installed, and from files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from command_line import raymia
from small_image_audit import MEMBERS, OTHERS, SHAPE, write_image_audit
from tiny_models import passages

from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.util import plugins

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGE = "my_attacks"
NEW = ["in_capitals", "top1"]
EACH = 6
RULES = 8
"""Tests of tests/attacks/test_house_rules.py, for each attack."""


def recipes() -> dict[str, str]:
    """The blocks of code that name a file, by that name."""
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


@dataclass
class Workplace:
    """Where a contributor works: no checkout, and an audit that names the new attacks."""

    folder: Path

    def write(self, name: str, content: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return file

    def audit(self, model: Path, **changes: object) -> Path:
        texts = passages(2 * EACH)
        for name, some in (("members", texts[:EACH]), ("others", texts[EACH:])):
            self.write(f"{name}.jsonl", "".join(f"{json.dumps({'text': t})}\n" for t in some))
        content = {
            "records": {"members": "members.jsonl", "non_members": "others.jsonl"},
            "targets": [{"name": "one", "model": str(model)}],
            "attacks": ["loss", *NEW],
            "metrics": {"resamples": 100},
            "output": "run",
            "store": "store",
            **changes,
        }
        return self.write("audit.yaml", yaml.safe_dump(content))

    def run(self, *commands: Sequence[str | Path]) -> list[str]:
        """Run command lines; what each prints, with white space as one blank each."""
        done = [raymia(*arguments) for arguments in commands]
        assert [one.returncode for one in done] == [0] * len(commands), done
        return [" ".join((one.stdout + one.stderr).split()) for one in done]

    def capitals(self) -> dict[str, object]:
        """The key of the answers to the new question, of which there is one for each record."""
        (folder,) = (self.folder / "store" / "evidence" / "text.capitals").iterdir()
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
        stored = EvidenceStore(str(self.folder / "store")).read(
            EvidenceKey(key.pop("kind"), key), ["log_prob_sum"]
        )
        assert stored is not None
        assert stored.num_rows == 2 * EACH
        assert stored["log_prob_sum"].null_count == 0
        return dict(key)


def check_scores(folder: Path) -> None:
    """The new attacks have a score for each record, from 0 to 1 the one that is a share."""
    scores = pq.read_table(folder / "run" / "scores.parquet").to_pandas()
    found = scores[scores["attack"].isin(NEW)]
    assert sorted(found["attack"].unique()) == NEW
    assert len(found) == len(NEW) * 2 * EACH
    assert found["score"].notna().all()
    assert found[found["attack"] == "top1"]["score"].between(0, 1).all()


def test_recipes_are_whole() -> None:
    assert set(recipes()) == {
        "top1.py", "median_loss.py", "capitals.py", f"{PACKAGE}/__init__.py", "pyproject.toml",
    }  # fmt: skip


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is loaded in this process, nobody knows afterwards."""
    before = set(plugins._loaded)
    yield
    for module in set(plugins._loaded) - before:
        plugins._forget(module)
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


@pytest.mark.long
@pytest.mark.usefixtures("forgotten")
def test_an_installed_package_has_its_attacks_and_questions_in_audits_that_name_them(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, place = Workplace(tmp_path / "source"), Workplace(tmp_path / "work")
    for name, content in recipes().items():
        source.write(f"{PACKAGE}/{name}" if name in ("top1.py", "capitals.py") else name, content)
    file = place.audit(tiny_gpt2, resources={"engine": "local"})
    unknown = raymia("plan", file)  # there is no such package yet
    assert unknown.returncode == 2
    assert "no attack 'top1'" in unknown.stderr
    install(source.folder, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    listed, planned, _, again = place.run(
        ["attacks"], ["plan", file], ["audit", file], ["plan", file]
    )
    assert all(name in listed for name in NEW)
    assert "target 1 + 1" in listed
    assert "24" in planned
    check_scores(place.folder)
    assert len(str(place.capitals()["code"])) == 32
    assert "nothing is left to ask" in again


@pytest.mark.usefixtures("local_ray", "forgotten")
def test_files_are_plugins_of_the_command_line_and_of_the_audit_file(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("top1.py", "capitals.py"):
        place.write(name, recipes()[name])
    file = place.audit(tiny_gpt2)
    given = ["--plugin", "top1.py", "--plugin", "capitals.py"]
    done = [raymia(*command, *given) for command in (["attacks"], ["plan", file], ["audit", file])]
    assert [one.returncode for one in done] == [0, 0, 0], done
    assert all(name in done[0].stdout for name in NEW)
    check_scores(place.folder)
    assert "code" in place.capitals()
    for plugin in plugins.load_plugins(["top1.py", "capitals.py"]):
        plugins._forget(plugin.module)
    assert raymia("plan", file).returncode == 2
    named = place.audit(tiny_gpt2, plugins=["top1.py", "capitals.py"])
    planned = raymia("plan", named)
    assert "nothing is left to ask" in planned.stdout, planned


@pytest.mark.usefixtures("forgotten")
def test_an_attack_on_images_is_a_plugin_too(tmp_path: Path) -> None:
    plugin = Workplace(tmp_path).write("median_loss.py", recipes()["median_loss.py"])
    fresh_pipeline(tmp_path / "model", SHAPE, channels=(16, 32), attention=False)
    file = write_image_audit(
        tmp_path, tmp_path / "model", attacks=["loss", "median_loss"], plugins=[str(plugin)],
        neighbors=None,
    )  # fmt: skip
    assert raymia("audit", file).returncode == 0
    scores = pq.read_table(tmp_path / "run" / "scores.parquet").to_pandas()
    found = scores[scores["attack"] == "median_loss"]["score"]
    assert len(found) == MEMBERS + OTHERS
    assert (found < 0).all()


CHANGES = {
    "import Attack, Scores, register": "import Attack, Scores, answered, register",
    'evidence.target.answers["capitals"]': "answered(evidence.target.capitals)",
}
"""What becomes of the question's file when it is one of raymia's own."""
FIELD = "    other_answer: Floats | None = None\n"


def changed(content: str, changes: Mapping[str, str]) -> str:
    for before, after in changes.items():
        assert content.count(before) == 1
        content = content.replace(before, after)
    return content


@pytest.mark.long
def test_as_raymias_own_they_keep_the_rules_of_the_house(tmp_path: Path) -> None:
    """In a copy of raymia, to which nothing else was done."""
    files, own = recipes(), PAGE.parent / "raymia"
    copy = shutil.copytree(own, tmp_path / "raymia", copy_function=os.symlink)
    with_field = {FIELD: FIELD + FIELD.replace("other_answer", "capitals")}
    evidence = (own / "evidence" / "text.py").read_text(encoding="utf-8")
    (copy / "evidence" / "text.py").unlink()
    for name, content in {
        "evidence/text.py": changed(evidence, with_field),
        "questions/capitals.py": changed(files["capitals.py"], CHANGES),
        "attacks/top1.py": files["top1.py"],
        "attacks/median_loss.py": files["median_loss.py"],
    }.items():
        (copy / name).write_text(content, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "tests/attacks/test_house_rules.py", "-k", "top1 or median_loss or in_capitals",
        ],
        cwd=PAGE.parent, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"{3 * RULES} passed" in done.stdout


def install(source: Path, folder: Path) -> None:
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
            "--no-build-isolation", "--target", folder, source,
        ],
        check=True, timeout=120,
    )  # fmt: skip
