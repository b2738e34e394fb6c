"""The docs are a site with every page in it, and what the pages show runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia.report.files import write_run
from raymia.results.verdict import reach_verdict

ROOT = Path(__file__).parents[2]


def pages(entry):
    """The pages below a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry if isinstance(entry, list) else entry.values()
    return [page for part in parts for page in pages(part)]


def test_the_site_has_every_page_once():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages(site["nav"])
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert site["site_dir"] in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_the_first_page_leads_to_every_other():
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", first))
    assert linked | {"index.md"} == {path.name for path in (ROOT / "docs").glob("*.md")}


PYTHON = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    )
]


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_that_a_page_shows_runs(block, tmp_path, monkeypatch):
    """In a folder with a run of one target."""
    names = {"tuned": "target", "ez@self_prompt": "ez@base"}
    scores = made_up_scores(lambda text: names.get(text, text))
    scores = scores.filter([name == "target" for name in scores["target"].to_pylist()])
    result = made_up_result(scores)
    judged = result.model_copy(update={"verdict": reach_verdict(result)})
    write_run(str(tmp_path / "report"), judged, [scores], made_up_curves(scores))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page", "exec"), {})
