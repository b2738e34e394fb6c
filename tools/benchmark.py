"""How fast raymia asks a model, beside its bare forward pass and other ways, in one run; how fast
it tries settings; how fast it measures stored scores; many adapters in one audit or in many; what
it takes without any model; and whether an audit takes what `raymia plan` says.

    python tools/benchmark.py                                  # shipped model and texts, a minute
    python tools/benchmark.py --model FOLDER --texts FILE.jsonl --rounds 5 --json speed.json
    python tools/benchmark.py --images                         # an untrained UNet, digits
    python tools/benchmark.py --images FOLDER --model PIPELINE --rounds 5
    python tools/benchmark.py --sweep                          # settings on made-up evidence
    python tools/benchmark.py --reduce                         # 10 million records x 5 attacks
    python tools/benchmark.py --adapters 50                    # one audit of 50; 5 audits of one
    python tools/benchmark.py --adapters 12 --images           # the same of a diffusion model
    python tools/benchmark.py --pipeline --records 1000000     # a model that answers at once
    python tools/benchmark.py --simulated                      # devices that sleep, a slow store
    python tools/benchmark.py --plan raymia-demo/audit.yaml    # what is said beside what is taken
    python tools/benchmark.py --plan-targets 5000              # how long it takes to say it

Every round takes the ways in turn, so that a machine with other work slows all alike; the ratios
are of one round each, and their median and range are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Read once: torch's threads wait as those of raymia's workers do, and tqdm draws no bars.
os.environ |= {"GOMP_SPINCOUNT": "1000", "TQDM_DISABLE": "1"}

import torch
from benchmarks.measure import write_page

DIGITS = "digits"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write what was asked for."""
    given = parser().parse_args(arguments)
    load = os.getloadavg()[0]
    torch.set_num_threads(os.cpu_count() or 1)
    measure = measure_texts if given.images is None else measure_images
    if given.sweep:
        measure = measure_sweep
    elif given.reduce:
        measure = measure_reduction
    elif given.adapters:
        measure = measure_adapters
    elif given.pipeline:
        measure = measure_pipeline
    elif given.simulated:
        measure = measure_simulated
    elif given.plan:
        measure = measure_plans
    elif given.plan_targets:
        measure = measure_many_targets
    found, table, marker = measure(given, load)
    print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if given.page:
        write_page(given.page, marker, table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Measure how fast raymia asks a model.")
    made.add_argument("--model", metavar="FOLDER", help="default: the demo's base, a fresh UNet")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--records", type=int, default=10_000, help="made up: sweeps, pipeline")
    made.add_argument("--folder", metavar="FOLDER", help="for what is made up: scores, a store")
    made.add_argument("--json", metavar="FILE", type=Path, help="write everything measured")
    made.add_argument("--page", metavar="FILE.md", type=Path, help="put the table into a page")
    texts = made.add_argument_group("language models")
    texts.add_argument("--texts", metavar="FILE", help="JSONL, CSV or Parquet; default: the demo's")
    texts.add_argument("--text-column", default="text")
    texts.add_argument("--neighbors", type=int, default=2, help="of each text")
    texts.add_argument("--batch-tokens", type=int, default=8_192)
    sweeps = made.add_argument_group("sweeps")
    sweeps.add_argument("--sweep", action="store_true", help="measure how fast settings are tried")
    sweeps.add_argument("--settings", type=int, default=1_000, help="a multiple of 20")
    images = made.add_argument_group("diffusion models")
    images.add_argument(
        "--images", metavar="FOLDER", nargs="?", const=DIGITS,
        help="measure a diffusion model, on these images; without a folder: handwritten digits",
    )  # fmt: skip
    images.add_argument("--count", type=int, default=100, help="images, or records, that are used")
    images.add_argument(
        "--shape", type=int, nargs=3, default=(1, 32, 32), metavar=("CHANNELS", "HEIGHT", "WIDTH"),
        help="of the fresh UNet's images",
    )  # fmt: skip
    images.add_argument(
        "--channels", type=int, nargs="+", default=(32, 64, 64),
        help="of the fresh UNet's resolutions, the highest first",
    )  # fmt: skip
    reduction = made.add_argument_group("stored scores")
    reduction.add_argument("--reduce", action="store_true", help="measure made-up scores on Ray")
    reduction.add_argument("--scores", type=int, default=10_000_000, help="of each attack")
    reduction.add_argument("--attacks", type=int, default=5)
    reduction.add_argument("--targets", type=int, default=1)
    adapters = made.add_argument_group("adapters of one base")
    adapters.add_argument("--adapters", type=int, help="audit so many at once, and some alone")
    adapters.add_argument("--separate", type=int, default=5, help="that are audited alone")
    adapters.add_argument("--all", action="store_true", help="audit each of them alone")
    pipeline = made.add_argument_group("all but the model")
    pipeline.add_argument(
        "--pipeline", action="store_true", help="measure an audit whose model answers at once"
    )
    pipeline.add_argument(
        "--simulated", action="store_true", help="measure how busy simulated devices are kept"
    )
    pipeline.add_argument("--checkpoints", type=int, default=3)
    pipeline.add_argument("--block-records", type=int, default=512)
    pipeline.add_argument(
        "--whole", action="store_true", help="score without shards as well, and count what differs"
    )
    plans = made.add_argument_group("plans")
    plans.add_argument(
        "--plan", type=Path, nargs="+", metavar="AUDIT.yaml",
        help="calibrate, plan and run these audits, in new stores",
    )  # fmt: skip
    plans.add_argument("--plan-targets", type=int, help="plan audits of so many targets")
    return made


def measure_texts(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import texts

    bench = texts.make_bench(
        given.model, given.texts, given.text_column, given.batch_tokens, given.neighbors
    )
    found = texts.summary(bench, texts.measure(bench, given.rounds), load)
    return found, texts.page_table(found), texts.START


def measure_images(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import images

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.model is None:
            model = images.make_pipeline(tuple(given.shape), given.channels, folder / "pipeline")
        else:
            model = Path(given.model)
        files = None if given.images == DIGITS else given.images
        bench = images.make_bench(model, files, given.count, folder)
        found = images.summary(bench, images.measure(bench, given.rounds), load)
    return found, images.page_table(found), images.START


def measure_sweep(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import sweeps

    with tempfile.TemporaryDirectory() as name:
        spec = sweeps.make_audit(given.records, given.settings, Path(name))
        found = sweeps.summary(sweeps.measure(spec), load)
    return found, sweeps.page_table(found), sweeps.START


def measure_reduction(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import reductions

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        path = Path(name, "scores.parquet")
        made = reductions.make_scores(path, given.scores, given.attacks, given.targets)
        found = reductions.measure(made, given.rounds, load)
    return found, reductions.page_table(found), reductions.START


def measure_adapters(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import adapters, image_adapters

    kind: Any = adapters if given.images is None else image_adapters
    separate = given.adapters if given.all else min(given.separate, given.adapters)
    with tempfile.TemporaryDirectory() as name:
        bench = kind.make_bench(given.adapters, given.count, Path(name))
        found = kind.measure(bench, separate, load)
    return found, kind.page_table(found), kind.START


def measure_pipeline(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import pipeline

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        spec = pipeline.make_audit(
            given.records, given.checkpoints, given.block_records, Path(name)
        )
        found = pipeline.summary(pipeline.measure(spec, whole=given.whole), load)
    return found, pipeline.page_table(found), pipeline.START


def measure_simulated(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import simulated

    del given
    found = simulated.summary(simulated.measure(), load)
    return found, simulated.page_table(found), simulated.START


def measure_plans(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import plans

    found = plans.measure(given.plan, load)
    return found, plans.page_table(found), plans.START


def measure_many_targets(given: argparse.Namespace, load: float) -> tuple[dict[str, Any], str, str]:
    from benchmarks import many_targets

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        audits = many_targets.make_audits(given.plan_targets, Path(name))
        found = many_targets.measure(audits, given.plan_targets, load)
    return found, many_targets.page_table(found), many_targets.START


if __name__ == "__main__":
    main()
