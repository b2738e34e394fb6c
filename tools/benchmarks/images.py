"""How fast raymia computes PFAMI on a diffusion model, beside bare network calls and the authors'
way.

What is put to a model is a pair of image and timestep. PFAMI at one strength needs 20 of them per
record (ten timesteps, the record and its crop), at the ten strengths of the paper 110. The authors'
code computes 110 and uses 20.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.audits import time_audit
from benchmarks.measure import (
    Timing,
    machine_facts,
    machine_line,
    rates,
    ratios,
    run_rounds,
    spread_cell,
    timed,
)
from benchmarks.released import CALLS, released_scores
from raymia.demo.images import digits
from raymia.engine.on_ray.cluster import connected
from raymia.models.denoisers.model import Denoiser, load_denoiser
from raymia.models.denoisers.path import Diffusion
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.schedules import FLOW
from raymia.models.image_source import resolve_image_model
from raymia.models.source import read_json
from raymia.perturbations.kinds import DEFAULT_STRENGTHS
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.questions.asking.images import decode_pixels
from raymia.questions.base import RECORD, Item
from raymia.questions.images import DenoisingQuestion, Neighborhood
from raymia.records.images import pixels_array, read_image_records
from raymia.records.pixels import as_picture
from raymia.spec import EngineKind, ImageRecordsSpec, ModelSpec, ResourcesSpec
from raymia.spec.images import DenoisingSpec, Shape
from raymia.util.draws import normals, stream_key
from raymia.util.errors import InputError

LIMIT, ADAPTER, RAY, LOCAL, RAY_ALL, RELEASED = (
    "bare network calls", "raymia in process", "raymia through Ray", "raymia with engine: local",
    "raymia through Ray, ten strengths", "PFAMI as released",
)  # fmt: skip
ASKED_FOR = {
    LIMIT: "predicted noise at mixed timesteps, on noise made beforehand",
    ADAPTER: "pixels to errors, of the record and one crop",
    RAY: "the same to stored evidence, one actor, from its first block's commit to its last",
    LOCAL: "the same in one process",
    RAY_ALL: "the record and ten crops, all used",
    RELEASED: "the record and ten crops, one used; one timestep per call, gradients tracked",
}
TIMESTEPS = tuple(DenoisingSpec().timesteps)
STRENGTHS = DEFAULT_STRENGTHS["crop"]
USED = STRENGTHS[5]
ONE_STRENGTH = 2 * len(TIMESTEPS)
ALL_STRENGTHS = (1 + len(STRENGTHS)) * len(TIMESTEPS)
PASSES = {
    LIMIT: ONE_STRENGTH, ADAPTER: ONE_STRENGTH, RAY: ONE_STRENGTH, LOCAL: ONE_STRENGTH,
    RAY_ALL: ALL_STRENGTHS, RELEASED: CALLS,
}  # fmt: skip
"""Pairs of image and timestep that the network is asked about per record."""
BATCHES = (16, 32, 64, 128, 256)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
BLOCK_RECORDS = 32
START = "<!-- made by tools/benchmark.py --images -->"
LIBRARIES = ("raymia", "torch", "diffusers", "ray")

Tensor = torch.Tensor


@dataclass(frozen=True)
class ImageBench:
    """What every way is given; all in float32.

    Attributes
    ----------
    denoiser : the pipeline in this process as raymia loads it.
    network : the pipeline's network as diffusers loads it.
    fastest : the same network in the memory layout in which bare calls are fastest.
    folder : the records as files, for audits.
    items : the records in memory.
    batch_images : the batch size at which they are.
    batch_rates : pairs per second of bare calls, by memory layout and batch size.
    """

    checkpoint: DenoiserCheckpoint
    denoiser: Denoiser
    network: Any
    fastest: Any
    folder: Path
    items: list[Item]
    batch_images: int
    batch_rates: dict[str, dict[int, float]]


def make_pipeline(shape: Shape, channels: Sequence[int], folder: Path) -> Path:
    """An untrained pipeline: how fast it is does not depend on what it has learnt."""
    fresh_pipeline(folder, shape, channels=channels)
    return folder


def make_bench(model: Path, images: str | None, count: int, folder: Path) -> ImageBench:
    """Load the model and the images, and find the best batch size.

    Parameters
    ----------
    model : folder of a diffusers pipeline that denoises pixels.
    images : folder of images, cut to the model's size; None takes scikit-learn's digits.
    count : how many are used, at most.
    folder : where the images are written as the model takes them.

    Raises
    ------
    InputError
        For a model that the authors' way cannot be used on.
    """
    import diffusers

    spec = ModelSpec(model=str(model), dtype="float32")
    checkpoint = resolve_image_model(spec, "--model", on_gpu=torch.cuda.is_available())
    config = model / "unet" / "config.json"
    kind = read_json(config, "--model")["_class_name"] if config.is_file() else None
    is_latent = checkpoint.latent_shape != checkpoint.shape
    is_plain = kind == "UNet2DModel" and not is_latent
    if (
        not isinstance(checkpoint, DenoiserCheckpoint)
        or not is_plain
        or checkpoint.prediction == FLOW
    ):
        raise InputError(
            f"--model: {model} should be an unconditional DDPM of diffusers on pixels, with a "
            "UNet2DModel in unet/, as DDPMPipeline saves it"
        )
    if images is None:
        named = {f"{number:04}": image for number, image in enumerate(digits())}
        images = str(write_images(named, folder / "digits"))
    given = ImageRecordsSpec(kind="image", candidates=[images], fit="crop")
    table = read_image_records(given, checkpoint.shape).table.slice(0, count)
    items = [
        Item(record, RECORD, payload)
        for record, payload in zip(
            table["record_id"].to_pylist(), table["payload"].to_pylist(), strict=True
        )
    ]
    pixels = pixels_array([item.payload for item in items], checkpoint.shape)
    write_images(
        {item.record_id: image for item, image in zip(items, pixels, strict=True)},
        folder / "records",
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = diffusers.UNet2DModel.from_pretrained(model / "unet", use_safetensors=True)
    network = network.to(device).eval()
    networks = {
        name: deepcopy(network).to(memory_format=layout) for name, layout in LAYOUTS.items()
    }
    found = batch_rates(networks, checkpoint.shape)
    layout, size = max(
        ((layout, size) for layout in LAYOUTS for size in BATCHES),
        key=lambda place: found[place[0]][place[1]],
    )
    denoiser = load_denoiser(checkpoint, batch_images=size)
    return ImageBench(
        checkpoint, denoiser, network, networks[layout], folder / "records", items, size, found
    )


def write_images(images: Mapping[str, npt.NDArray[np.uint8]], folder: Path) -> Path:
    """Write images [channels, height, width] by name, one PNG file each."""
    folder.mkdir(parents=True)
    for name, image in images.items():
        as_picture(image).save(folder / f"{name}.png")
    return folder


def batch_rates(networks: Mapping[str, Any], shape: Shape) -> dict[str, dict[int, float]]:
    """Pairs per second of bare calls on the same rows by memory layout and batch size.

    All in turn, three times; the best counts.
    """
    rows = max(BATCHES)
    noisy, timesteps = noisy_rows(rows, shape, next(networks["contiguous"].parameters()).device)
    best = {name: dict.fromkeys(BATCHES, 0.0) for name in networks}
    for _ in range(3):
        for name, network in networks.items():
            for size in BATCHES:
                taken = timed(rows, partial(call_network, network, noisy, timesteps, size))
                best[name][size] = max(best[name][size], taken.rate)
    return best


def noisy_rows(rows: int, shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise, and timesteps in turn, so that each batch mixes them."""
    keys = torch.tensor([stream_key("benchmark", row) for row in range(rows)], device=device)
    noisy = normals(keys, int(np.prod(shape))).reshape(rows, *shape)
    return noisy, torch.tensor(TIMESTEPS, device=device).repeat(rows // len(TIMESTEPS) + 1)[:rows]


@torch.inference_mode()
def call_network(network: Any, noisy: Tensor, timesteps: Tensor, size: int) -> None:
    for batch, at in zip(torch.split(noisy, size), torch.split(timesteps, size), strict=True):
        network(batch, at)


def time_limit(bench: ImageBench) -> Timing:
    pairs = ONE_STRENGTH * len(bench.items)
    noisy, timesteps = noisy_rows(pairs, bench.checkpoint.shape, bench.denoiser.device)
    return timed(pairs, lambda: call_network(bench.fastest, noisy, timesteps, bench.batch_images))


def time_adapter(bench: ImageBench) -> Timing:
    record = DenoisingQuestion(0, None, TIMESTEPS, draws=1, noise="shared")
    crop = DenoisingQuestion(0, Neighborhood("crop", (USED,)), TIMESTEPS, draws=1, noise="shared")
    cropped = [Item(item.record_id, RECORD + 1, item.payload) for item in bench.items]

    def run() -> None:
        record.ask(bench.denoiser, bench.items)
        crop.ask(bench.denoiser, cropped)

    return timed(ONE_STRENGTH * len(bench.items), run)


def time_engine(
    bench: ImageBench, strengths: Sequence[float], engine: EngineKind = "ray"
) -> Timing:
    """PFAMI's audit with crops of these shares."""
    with tempfile.TemporaryDirectory() as folder:
        on_gpu = bench.denoiser.device.type == "cuda"
        pool = {"batch_images": bench.batch_images, "gpus": 0.5 if on_gpu else 0}
        content = {
            "records": {"kind": "image", "candidates": str(bench.folder)},
            "targets": [{"name": "target", "model": bench.checkpoint.path, "dtype": "float32"}],
            "neighbors": {"kind": "crop", "strengths": [*strengths]},
            "attacks": ["pfami"],
            "resources": {"engine": engine, "target": pool, "block_records": BLOCK_RECORDS},
            "store": str(Path(folder, "store")),
        }
        return time_audit(content, pairs_asked)


def pairs_asked(answers: pa.Table) -> int:
    """Pairs of image and timestep that the network was asked about."""
    return int(pc.sum(pc.list_value_length(answers["l2"])).as_py())


def time_released(bench: ImageBench) -> Timing:
    images = decode_pixels(bench.items, bench.denoiser) * 2 - 1
    path = bench.denoiser.path
    assert isinstance(path, Diffusion), "others are refused"
    alphas = path.alphas_cumprod
    return timed(CALLS * len(bench.items), lambda: released_scores(bench.network, alphas, images))


def ways(bench: ImageBench) -> dict[str, Callable[[], Timing]]:
    return {
        LIMIT: lambda: time_limit(bench),
        ADAPTER: lambda: time_adapter(bench),
        RAY: lambda: time_engine(bench, [USED]),
        LOCAL: lambda: time_engine(bench, [USED], "local"),
        RAY_ALL: lambda: time_engine(bench, STRENGTHS),
        RELEASED: lambda: time_released(bench),
    }


def measure(bench: ImageBench, rounds: int) -> dict[str, list[Timing]]:
    """Time every way in every round; the first calls, which load and tune, are not counted."""
    time_adapter(bench)
    with connected(ResourcesSpec()):
        return run_rounds(ways(bench), rounds, "pairs")


def images_per_second(name: str, taken: Sequence[Timing]) -> list[float]:
    """Records that a way takes in a second."""
    return [rate / PASSES[name] for rate in rates(taken)]


def summary(bench: ImageBench, timings: dict[str, list[Timing]], load: float) -> dict[str, Any]:
    """Everything that was measured, with the ratios round by round."""
    limit = rates(timings[LIMIT])
    released = images_per_second(RELEASED, timings[RELEASED])
    return {
        "parameters": sum(p.numel() for p in bench.network.parameters()),
        "shape": list(bench.checkpoint.shape),
        "records": len(bench.items),
        "batch_images": bench.batch_images,
        "batch_pairs_per_second": {
            layout: {size: round(rate, 1) for size, rate in by_size.items()}
            for layout, by_size in bench.batch_rates.items()
        },
        "rounds": len(limit),
        "machine": machine_facts(load, LIBRARIES),
        "ways": {
            name: {
                "passes_per_image": PASSES[name],
                "pairs_per_second": [round(rate, 1) for rate in rates(taken)],
                "images_per_second": [round(r, 3) for r in images_per_second(name, taken)],
                "start_up_seconds": [round(t.start_up, 1) for t in taken],
                "share_of_limit": ratios(rates(taken), limit),
                "over_released": ratios(images_per_second(name, taken), released),
            }
            for name, taken in timings.items()
        },
    }


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    shape = " x ".join(map(str, found["shape"]))
    lines = [
        f"UNet2DModel of {found['parameters']:,} parameters on images of {shape}: "
        f"{found['records']:,} images, batches of {found['batch_images']} (the fastest of "
        f"{', '.join(map(str, BATCHES))}), {machine_line(found)}",
        "",
        "| way | asked for | passes per image | passes/s | share of the limit | images/s | "
        "images/s over those of the released way |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, way in found["ways"].items():
        passes = statistics.median(way["pairs_per_second"])
        images = statistics.median(way["images_per_second"])
        cells = [name, ASKED_FOR[name], str(way["passes_per_image"]), f"{passes:,.0f}"]
        cells += [spread_cell(way["share_of_limit"]), f"{images:,.2f}"]
        cells.append(spread_cell(way["over_released"]))
        lines.append(f"| {' | '.join(cells)} |")
    start_up = statistics.median(found["ways"][RAY]["start_up_seconds"])
    lines += ["", f"Left out of Ray's rates: {start_up:.0f} s until the first block was stored."]
    return "\n".join(lines)
