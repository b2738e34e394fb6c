"""Check and measure raymia on one GPU, in some minutes and without a network.

    python jobs/gpu_check.py --minutes 8 --out gpu-check

Random weights of real shapes are made on the GPU. What was found stands in gpu_check.json and
gpu_check.md, written part by part, so a run that is cut keeps what it has. A part that fails is
written down as failed and the next goes on; the exit code is then 1. `--tiny` goes through the same
lines on the CPU, with models of a few thousand weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from benchmarks.measure import machine_facts  # noqa: E402
from gpu_checks.images import image_parts  # noqa: E402
from gpu_checks.parts import Journal, Setting  # noqa: E402
from gpu_checks.pools import pool_parts  # noqa: E402
from gpu_checks.texts import text_parts  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Take all parts, and return the exit code."""
    given = parser().parse_args(arguments)
    if not torch.cuda.is_available() and not given.tiny:
        print("there is no GPU here; --tiny goes through all parts on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if given.tiny else "cuda")
    facts = machine_facts(0.0, ("raymia", "torch", "transformers", "ray"))
    facts["card"] = torch.cuda.get_device_name() if device.type == "cuda" else "none"
    journal = Journal(given.out, facts, given.minutes)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, given.tiny, not given.no_ray, Path(folder))
        journal.take([*text_parts(), *image_parts(), *pool_parts()], setting)
    print(f"written to {given.out}; failed: {', '.join(journal.failed) or 'nothing'}", flush=True)
    return 1 if journal.failed else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--minutes", type=float, default=8.0, help="for all parts; default: 8")
    made.add_argument(
        "--out", type=Path, default=Path("gpu-check"), help="folder for what is found"
    )
    made.add_argument("--tiny", action="store_true", help="small models, on the CPU")
    made.add_argument("--no-ray", action="store_true", help="the pools in this process, one by one")
    return made


if __name__ == "__main__":
    sys.exit(main())
