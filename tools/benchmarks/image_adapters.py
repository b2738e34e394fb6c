"""Many LoRAs of one diffusion model in one audit, beside an audit of its own for each."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.adapters import RANK, SPREAD, read_scores, time_audit
from benchmarks.measure import machine_facts, machine_line
from raymia.demo.images import digits
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.image_split import parquet

START = "<!-- made by tools/benchmark.py --adapters --images -->"
LIBRARIES = ("raymia", "ray", "torch", "diffusers", "peft")
SHAPE, CHANNELS = (1, 8, 8), (32, 64)
ATTACKS = ("loss", "pia", "sima")


@dataclass(frozen=True)
class ImageAdapterBench:
    """What is audited.

    Attributes
    ----------
    folder : holds the base, the adapters, the records, and everything that the audits write.
    names : of the adapters' folders.
    """

    folder: Path
    names: list[str]

    def time_audit(self, name: str, target: dict[str, Any]) -> float:
        """Seconds of an audit with an output and a store of its own."""
        content = {
            "name": name,
            "output": f"{name}/run",
            "store": f"{name}/store",
            "records": {
                "kind": "image",
                "members": "members.parquet",
                "non_members": "non_members.parquet",
            },
            "targets": [{"model": "base", **target}],
            "attacks": list(ATTACKS),
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return time_audit(file)


def make_bench(adapters: int, records: int, folder: Path) -> ImageAdapterBench:
    """An untrained DDPM and adapters of random weights; handwritten digits, half of them called
    members."""
    fresh_pipeline(folder / "base", SHAPE, channels=CHANNELS)
    names = [f"adapter-{number:03d}" for number in range(adapters)]
    save_adapters(names, folder)
    images = np.unique(digits(), axis=0)
    if len(images) < records:
        raise SystemExit(f"--count: there are {len(images)} images, {records} were asked for")
    images = images[np.random.default_rng(0).permutation(len(images))[:records]]
    half = records // 2
    for name, part in (("members", images[:half]), ("non_members", images[half:])):
        (folder / f"{name}.parquet").write_bytes(parquet(part, None))
    return ImageAdapterBench(folder, names)


def save_adapters(names: list[str], folder: Path) -> None:
    """LoRAs of the base's attention and convolutions, all weights random."""
    from diffusers import UNet2DModel
    from peft import LoraConfig, get_peft_model

    base = UNet2DModel.from_pretrained(folder / "base" / "unet")
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    model = get_peft_model(base, config)
    draws = torch.Generator().manual_seed(0)
    for name in names:
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_" in key:
                    weight.normal_(0, SPREAD, generator=draws)
        model.save_pretrained(folder / "adapters" / name)


def measure(bench: ImageAdapterBench, separate: int, load: float) -> dict[str, Any]:
    """Time `raymia audit` on all adapters at once, and on some of them one by one.

    Parameters
    ----------
    separate : how many are audited one by one, spread evenly over all.

    Returns
    -------
    Seconds of each process from its start to its end, and by how much a score of the one differs
    from the other's, relative to it.
    """
    seconds = bench.time_audit("together", {"adapters": "adapters/*"})
    scores = read_scores(bench.folder / "together")
    print(f"one audit of {len(bench.names)} adapters: {seconds:.1f} s", flush=True)
    alone, largest = [], 0.0
    for name in (bench.names[n * len(bench.names) // separate] for n in range(separate)):
        alone.append(bench.time_audit(f"of-{name}", {"name": name, "adapter": f"adapters/{name}"}))
        own = read_scores(bench.folder / f"of-{name}")
        assert own.keys() == {key for key in scores if key[0] == name}
        differences = (abs(own[key] - scores[key]) / abs(own[key]) for key in own if own[key])
        largest = max(largest, *differences)
        print(f"an audit of {name}: {alone[-1]:.1f} s", flush=True)
    return {
        "adapters": len(bench.names),
        "records": sum(key[:2] == (bench.names[0], ATTACKS[0]) for key in scores),
        "scores": len(scores),
        "seconds": round(seconds, 1),
        "separate": separate,
        "separate_seconds": [round(s, 1) for s in alone],
        "largest_difference": largest,
        "rounds": 1,
        "machine": machine_facts(load, LIBRARIES),
    }


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    adapters, alone = found["adapters"], found["separate_seconds"]
    mean = statistics.mean(alone)
    slower, least, most = (
        adapters * one / found["seconds"] for one in (mean, min(alone), max(alone))
    )
    compared = found["scores"] // adapters * found["separate"]
    return "\n".join(
        [
            f"{adapters} LoRAs of an untrained DDPM, {found['records']} digits, {len(ATTACKS)} "
            f"attacks; {machine_line(found)}",
            "",
            "| way | seconds for all | seconds per adapter |",
            "|---|---|---|",
            f"| one audit of all | {found['seconds']:,.0f} | {found['seconds'] / adapters:.1f} |",
            f"| an audit for each | {adapters * mean:,.0f}, from {found['separate']} of them | "
            f"{mean:.1f} ({min(alone):.1f} to {max(alone):.1f}) |",
            "",
            f"An audit for each takes {slower:.1f} times as long as one of all ({least:.1f} to "
            f"{most:.1f} times by the fastest and the slowest). Of {compared:,} scores that both "
            f"have, none differs by more than {found['largest_difference']:.1e} of itself.",
        ]
    )
