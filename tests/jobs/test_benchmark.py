"""What jobs/benchmark.py makes of its timings, and one small round of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ray_fixtures import ensure_local_ray
from small_audit import BASE, passages, write_texts

import raymia

SCRIPT = Path(raymia.__file__).parent.parent / "jobs" / "benchmark.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("raymia_benchmark_job", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_one_command_measures_every_way_and_writes_numbers_and_table(
    script: ModuleType, tmp_path: Path
) -> None:
    ensure_local_ray()
    texts = [" ".join(text.split()[:8]) for text in passages()[:80]]
    write_texts(tmp_path / "texts.jsonl", texts)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script.START}\nold\n{script.END}\nafter\n")
    script.main(
        ["--model", str(BASE), "--texts", str(tmp_path / "texts.jsonl"), "--rounds", "1",
         "--json", str(tmp_path / "speed.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found["ways"]) | {script.HARNESS} == set(script.ASKED_FOR)
    assert (script.HARNESS in found["ways"]) == (found["missing"] == [])
    for way in found["ways"].values():
        assert len(way["tokens_per_second"]) == found["rounds"] == 1
        assert way["share_of_limit"]["min"] > 0
    assert found["ways"][script.LIMIT]["share_of_limit"] == {"median": 1, "min": 1, "max": 1}
    assert found["ways"][script.RAY]["start_up_seconds"][0] > 0
    assert found["records"] == len(set(texts))
    assert found["neighbors"] == 2 * found["records"]
    content = page.read_text()
    assert content.startswith("before\n")
    assert content.endswith("after\n")
    assert "old" not in content
    assert all(f"| {name} |" in content for name in found["ways"])


def test_ratios_are_taken_within_a_round(script: ModuleType) -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    ways = {
        script.LIMIT: [script.Timing(100, 1.0), script.Timing(100, 2.0)],
        script.RAY: [script.Timing(80, 1.0, start_up=5.0), script.Timing(80, 2.0, start_up=7.0)],
        script.ONE: [script.Timing(20, 1.0), script.Timing(20, 2.0)],
    }
    model = type("Source", (), {"path": "folder/name"})()
    bench = script.Bench(None, model, ["a"], [], [[1, 2]], 8, False)
    found = script.summary(bench, ways, load=0.0)
    assert found["ways"][script.RAY]["share_of_limit"] == {"median": 0.8, "min": 0.8, "max": 0.8}
    assert found["ways"][script.ONE]["ray_is_faster"] == {"median": 4, "min": 4, "max": 4}
    assert found["ways"][script.RAY]["start_up_seconds"] == [5.0, 7.0]
    assert found["missing"] == ["lm-evaluation-harness: not installed"]
    assert "0.80 (0.80 to 0.80)" in script.page_table(found)
    assert "6 s until the first block was stored" in script.page_table(found)


def test_help_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; sys.argv = ['raymia', '--help']\n"
        "from raymia.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 'numpy', 'pydantic', 'requests'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.rstrip().endswith("LOADED []")
