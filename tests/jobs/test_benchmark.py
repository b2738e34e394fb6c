"""What tools/benchmark.py makes of its timings, and small rounds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from answered_audit import two_answered
from benchmarks import (
    adapters,
    image_adapters,
    images,
    pipeline,
    plans,
    reductions,
    simulated,
    texts,
)
from benchmarks.measure import END, Timing, write_page
from benchmarks.released import CALLS, STRENGTHS, TIMESTEPS, released_scores
from benchmarks.whole import held_to_whole
from scripts import load_script
from small_audit import BASE, Models, passages, write_small_audit, write_texts

from raymia.evidence import sharded
from raymia.evidence.upkeep import MAX_PARTS
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import reduce_audit
from raymia.scoring.workers import Here


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("tools/benchmark.py")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.slow
def test_one_command_measures_every_way_of_asking_a_language_model(
    script: ModuleType, tmp_path: Path
) -> None:
    given = [" ".join(text.split()[:8]) for text in passages()[:80]]
    write_texts(tmp_path / "texts.jsonl", given)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{texts.START}\nold\n{END}\nafter\n")
    script.main(
        ["--model", str(BASE), "--texts", str(tmp_path / "texts.jsonl"), "--rounds", "1",
         "--json", str(tmp_path / "speed.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found["ways"]) | {texts.HARNESS} == set(texts.ASKED_FOR)
    assert (texts.HARNESS in found["ways"]) == (found["missing"] == [])
    for way in found["ways"].values():
        assert len(way["tokens_per_second"]) == found["rounds"] == 1
        assert way["share_of_limit"]["min"] > 0
    assert found["ways"][texts.LIMIT]["share_of_limit"] == {"median": 1, "min": 1, "max": 1}
    assert found["ways"][texts.RAY]["start_up_seconds"][0] > 0
    assert found["records"] == len(set(given))
    assert found["neighbors"] == 2 * found["records"]
    content = page.read_text()
    assert content.startswith("before\n")
    assert content.endswith("after\n")
    assert "old" not in content
    assert all(f"| {name} |" in content for name in found["ways"])


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_one_command_measures_every_way_of_computing_pfami(
    script: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{images.START}\nold\n{END}\nafter\n{texts.START}\nkept\n{END}\n")
    script.main(
        ["--images", "--count", "45", "--shape", "1", "8", "8", "--channels", "8", "16",
         "--rounds", "1", "--json", str(tmp_path / "speed.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "speed.json").read_text())
    assert list(found["ways"]) == list(images.ASKED_FOR)
    assert found["records"] == 45
    assert found["shape"] == [1, 8, 8]
    tried = found["batch_pairs_per_second"]
    assert set(tried) == set(images.LAYOUTS)
    assert all({int(size) for size in rates} == set(images.BATCHES) for rates in tried.values())
    fastest = max(rate for rates in tried.values() for rate in rates.values())
    assert fastest in [rates[str(found["batch_images"])] for rates in tried.values()]
    passes = {name: way["passes_per_image"] for name, way in found["ways"].items()}
    assert passes == {
        images.LIMIT: 20, images.ADAPTER: 20, images.RAY: 20, images.LOCAL: 20,
        images.RAY_ALL: 110, images.RELEASED: 110,
    }  # fmt: skip
    for way in found["ways"].values():
        per_image = way["pairs_per_second"][0] / way["passes_per_image"]
        assert way["images_per_second"][0] == pytest.approx(per_image, abs=0.01)
        assert way["share_of_limit"]["min"] > 0
    for name in (images.RAY, images.LOCAL, images.RAY_ALL):
        assert found["ways"][name]["start_up_seconds"][0] > 0
    content = page.read_text()
    assert content.startswith("before\n")
    assert content.endswith(f"after\n{texts.START}\nkept\n{END}\n")
    assert "old" not in content
    assert all(f"| {name} |" in content for name in found["ways"])


@pytest.mark.usefixtures("local_ray")
def test_one_command_measures_stored_scores_and_has_other_code_check_them(
    script: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{reductions.START}\nold\n{END}\n")
    script.main(
        ["--reduce", "--scores", "3000", "--attacks", "2", "--targets", "2", "--rounds", "1",
         "--folder", str(tmp_path), "--json", str(tmp_path / "r.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["scores"] == 12_000
    assert found["auc"] == pytest.approx(found["auc_by_scikit_learn"], abs=1e-12)
    assert 0.5 < found["auc"] < 0.7
    (peak,), (driver,) = found["peak_gib"], found["driver_peak_gib"]
    assert 0 < driver <= peak
    assert "| 1 | 12,000 |" in page.read_text()
    assert not list(tmp_path.glob("*/scores.parquet"))


@pytest.mark.slow
def test_one_command_audits_adapters_at_once_and_one_by_one(
    script: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{adapters.START}\nold\n{END}\n")
    script.main(
        ["--adapters", "3", "--separate", "1", "--count", "12",
         "--json", str(tmp_path / "a.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["records"] == 12
    assert found["scores"] == 3 * 12 * len(adapters.ATTACKS)
    assert found["loads_by_process"] == [1]
    assert found["separate_loads"] == [1]
    assert found["largest_difference"] < 1e-4
    assert "| an audit for each | " in page.read_text()
    assert ", from 1 of them |" in page.read_text()


@pytest.mark.slow
def test_one_command_audits_loras_of_a_diffusion_model_at_once_and_one_by_one(
    script: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{image_adapters.START}\nold\n{END}\n")
    script.main(
        ["--adapters", "3", "--images", "--separate", "1", "--count", "12",
         "--json", str(tmp_path / "a.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["records"] == 12
    assert found["scores"] == 3 * 12 * len(image_adapters.ATTACKS)
    assert found["largest_difference"] < 1e-3
    assert "| an audit for each | " in page.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_one_command_takes_an_audit_through_all_but_a_model_and_its_files_stay_few(
    script: ModuleType, tmp_path: Path
) -> None:
    """Each of 400 blocks would leave a file."""
    page = tmp_path / "page.md"
    page.write_text(f"{pipeline.START}\nold\n{END}\n")
    script.main(
        ["--pipeline", "--records", "400", "--checkpoints", "2", "--block-records", "2", "--whole",
         "--folder", str(tmp_path), "--json", str(tmp_path / "p.json"), "--page", str(page)]
    )  # fmt: skip
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["blocks"] == 400
    assert found["files"]["end"] <= 2 * MAX_PARTS
    assert found["files"]["most"] < 300
    assert found["records_per_second"] > 0
    assert found["evidence_bytes"] > 4 * found["tokens"]
    assert found["whole"]["scores"] == 400 * 2 * len(pipeline.ATTACKS)
    assert found["whole"]["other_scores"] == found["whole"]["other_results"] == 0
    assert "| scores that differ without shards | 0 of 2,400 |" in page.read_text()
    assert "| files of evidence, at most |" in page.read_text()
    assert not list(tmp_path.glob("*/store"))


def test_what_differs_without_shards_is_counted(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 4)
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    parts = ScoreParts(store.folder.url, "scores/shown")
    found = reduce_audit(inputs, store, plans, parts, Here())
    count = len(plans) * len(inputs.attacks)
    expected = {
        "scores": count * inputs.records.table.num_rows, "other_scores": 0,
        "results": count + len(found.comparisons), "other_results": 0,
    }  # fmt: skip
    assert held_to_whole(inputs, store, plans, parts, found) == expected
    assert sharded.SHARD_RECORDS == 4

    scores = parts.read(plans[0].name)
    scores["loss"][1] += 1e-12
    parts.write(plans[0].name, scores)
    changed = found.metrics[0].model_copy(update={"attack": "another"})
    other = replace(found, metrics=[changed, *found.metrics[1:]])
    differs = {**expected, "other_scores": 1, "other_results": 1}
    assert held_to_whole(inputs, store, plans, parts, other) == differs


@pytest.mark.long
def test_devices_that_are_simulated_are_asked_about_every_block() -> None:
    found = simulated.measure_one("local", rate=50_000, bucket=None, block_seconds=0.05, blocks=2)
    assert found["blocks"] == [2] * simulated.POOLS
    assert 0 < found["busy"][0] < 1


HOLDS_AND_FORKS = """
import os, sys
held = bytearray(b'x') * 2 ** 26
if os.fork() == 0:
    while os.times().user < 0.5: sum(held[::4096])
    print('up', flush=True)
sys.stdin.read()
"""
WATCHES = """
import json, os, subprocess, sys
from benchmarks import reductions

pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
with reductions.watched() as watch:
    before = watch.peak
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], **pipes)
    assert child.stdout.readline().strip() == b"up"
    watch.sample()
    child.communicate(b"")
others = sum(s for pid, s in watch.cpu_seconds.items() if pid != os.getpid())
print(json.dumps([before, watch.peak, watch.driver_peak, others]))
"""


@pytest.mark.long
def test_memory_of_all_processes_counts_what_they_share_once() -> None:
    """A child that holds 64 MiB of its own adds them; one that was forked from it adds little.

    In a process of its own: this one may be the parent of a Ray that other tests started.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCHES, HOLDS_AND_FORKS], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True,
    )  # fmt: skip
    before, peak, driver_peak, others = json.loads(done.stdout)
    grown = (peak - before) / 2**20
    assert 64 < grown < 126  # 128 and more if the fork counted in full
    assert driver_peak < peak
    assert 0.5 < others < 5


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    ways = {
        texts.LIMIT: [Timing(100, 1.0), Timing(100, 2.0)],
        texts.RAY: [Timing(80, 1.0, start_up=5.0), Timing(80, 2.0, start_up=7.0)],
        texts.ONE: [Timing(20, 1.0), Timing(20, 2.0)],
    }
    model = type("Source", (), {"path": "folder/name"})()
    bench = texts.TextBench(None, None, model, ["a"], [], [[1, 2]], 8, False)
    found = texts.summary(bench, ways, load=0.0)
    assert found["ways"][texts.RAY]["share_of_limit"] == {"median": 0.8, "min": 0.8, "max": 0.8}
    assert found["ways"][texts.ONE]["ray_is_faster"] == {"median": 4, "min": 4, "max": 4}
    assert found["ways"][texts.RAY]["start_up_seconds"] == [5.0, 7.0]
    assert found["missing"] == ["lm-evaluation-harness: not installed"]
    assert "0.80 (0.80 to 0.80)" in texts.page_table(found)
    assert "6 s until the first block was stored" in texts.page_table(found)


def test_ways_that_compute_more_per_image_are_compared_per_pass_and_per_image(
    tmp_path: Path,
) -> None:
    """All as fast per pass: the limit takes 5.5 times the images, since 20 of 110 are needed."""
    ways = {name: [Timing(1100, 1.0), Timing(1100, 2.0)] for name in images.ASKED_FOR}
    checkpoint = type("Checkpoint", (), {"shape": (1, 8, 8)})()
    network = torch.nn.Linear(2, 3)
    bench = images.ImageBench(
        checkpoint, None, network, network, tmp_path, [], 64, {"contiguous": {64: 9.0}}
    )
    found = images.summary(bench, ways, load=0.0)
    assert found["parameters"] == 9
    for name in images.ASKED_FOR:
        way = found["ways"][name]
        assert way["share_of_limit"]["median"] == 1
        assert way["over_released"]["median"] == 110 / way["passes_per_image"]
    assert found["ways"][images.RAY]["over_released"]["median"] == 5.5
    assert found["ways"][images.RAY_ALL]["over_released"]["median"] == 1
    assert "| 5.50 (5.50 to 5.50) |" in images.page_table(found)


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{texts.START}\n{END}\n")
    with pytest.raises(SystemExit, match=f"add the lines {images.START}"):
        write_page(page, images.START, "| table |")
    assert page.read_text() == f"{texts.START}\n{END}\n"


class OneTimestepPerCall(torch.nn.Module):
    """Predicts a share of the noisy image, and counts how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))
        self.calls: list[tuple[int, int, bool]] = []

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor) -> object:
        sample = self.share * noisy
        self.calls.append((len(noisy), int(timestep), sample.requires_grad))
        return type("Output", (), {"sample": sample})()


def test_the_released_way_computes_what_it_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """110 calls with gradients per batch of 100, and the score of the sixth strength.

    The noise is left out, so that L_t(x) = mean (x sqrt(abar_t) / 2)^2 and the score is the ratio
    of the mean squares of crop and image, less one.
    """
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    pixels = torch.rand(150, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = OneTimestepPerCall()
    alphas = torch.linspace(0.99, 0.01, 1000, dtype=torch.float64)
    scores = released_scores(network, alphas, pixels)
    assert CALLS == 110
    assert len(network.calls) == 2 * CALLS
    assert {size for size, _, _ in network.calls} == {100, 50}
    assert [t for _, t, _ in network.calls[:10]] == list(TIMESTEPS) == list(range(0, 500, 50))
    assert all(tracked for _, _, tracked in network.calls)
    np.testing.assert_allclose(STRENGTHS[5], 0.8111, atol=1e-4)
    center = pixels[:, :, 2:18, 2:18]  # 16 = int(20 x 0.8111) pixels
    places = (torch.arange(20) + 0.5) * 16 / 20 - 0.5
    low = places.clamp(0, 15).floor().long()
    high, weight = (low + 1).clamp(max=15), places.clamp(0, 15) - low
    rows = center[:, :, low] * (1 - weight[:, None]) + center[:, :, high] * weight[:, None]
    scaled = rows[..., low] * (1 - weight) + rows[..., high] * weight
    expected = scaled.square().mean((1, 2, 3)) / pixels.square().mean((1, 2, 3)) - 1
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_command_holds_plans_to_what_is_taken(
    script: ModuleType, tmp_path: Path, models: Models
) -> None:
    file = write_small_audit(tmp_path, models, self_prompt=True)
    page = tmp_path / "page.md"
    page.write_text(f"{plans.START}\nold\n{END}\n")
    script.main(
        ["--plan", str(file), "--json", str(tmp_path / "plans.json"), "--page", str(page)]
    )  # fmt: skip
    (found,) = json.loads((tmp_path / "plans.json").read_text())["audits"]
    parts = {part["name"]: part for part in found["parts"]}
    assert set(parts) == {
        "prepare self_prompt:tuned", "neighbors", "target:tuned", "reference:base",
        "reference:self_prompt:tuned",
    }  # fmt: skip
    assert all(part["said"] > 0 and part["taken"] > 0 for part in parts.values())
    assert found["records"] == 24
    longest = max(parts[name]["taken"] for name in parts)
    assert longest <= found["wall"]["taken"] <= found["run_seconds"]
    assert found["wall"]["said"] > parts["prepare self_prompt:tuned"]["said"]
    assert all(f"| {name} |" in page.read_text() for name in parts)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "run").exists()


def test_time_that_spans_share_is_counted_once() -> None:
    assert plans.covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4
    assert plans.covered([]) == 0


def test_help_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; sys.argv = ['raymia', '--help']\n"
        "from raymia.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 'numpy', 'pydantic', 'requests'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.rstrip().endswith("LOADED []")
