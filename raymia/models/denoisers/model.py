"""Diffusion models behind one face: images in, predicted noise out.

Whatever a network predicts (noise, velocity or the clean image), in pixels or in an autoencoder's
latents, with or without text, it is asked here for the noise, so that every attack on the noise has
one definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path as Folder
from typing import Any, TypeVar

import torch

from raymia.models.batching import run_on_images
from raymia.models.denoisers.captions import Captions, Condition, TextEncoder, load_text_encoder
from raymia.models.denoisers.lora import LoraSwitch
from raymia.models.denoisers.parts import Part
from raymia.models.denoisers.path import Diffusion, Flow, Path
from raymia.models.denoisers.query import Told
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.schedules import FLOW, kept_by, prediction_of, read_scheduler
from raymia.models.lanes import Twins, lanes_here
from raymia.models.original_layout import tensors_of
from raymia.models.saved_quantization import TORCHAO
from raymia.models.whole_weights import LOADING, load_whole
from raymia.spec.images import Shape
from raymia.util.caller import silenced
from raymia.util.optional import require

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Tensor = torch.Tensor
Answer = TypeVar("Answer")


class Denoiser:
    """A diffusion model's network, path to noise and, where it has them, autoencoder and text.

    Parameters
    ----------
    network : from (x_t, timesteps, condition) to the network's output, [batch, channels, ...].
    path : from images to noise.
    shape : channels, height and width of the images.
    latent_shape : of what the network sees; equal to ``shape`` without an autoencoder.
    batch_images : largest number of images per forward pass.
    autoencoder : with ``encode`` to and ``decode`` from what the network sees; None for pixels.
    embed : from captions to what the network is conditioned on; None for a model without text.
    prompt : the one caption of all images; None where each has its own.
    one_by_one : never put two images in a forward pass, as LLM.int8 needs it.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Condition], Tensor],
        path: Path,
        *,
        shape: Shape,
        latent_shape: Shape,
        batch_images: int,
        device: torch.device | None = None,
        autoencoder: Latents | None = None,
        embed: Callable[[Sequence[str]], Condition] | None = None,
        prompt: str | None = None,
        one_by_one: bool = False,
    ) -> None:
        self.network = network
        self.device = device or torch.device("cpu")
        self.path = path
        self.shape = shape
        self.latent_shape = latent_shape
        self.one_by_one = one_by_one
        self.batch_images = 1 if one_by_one else batch_images
        self.autoencoder = autoencoder
        self.embed = embed
        self.prompt = prompt

    def with_batches(self, images: int, prompt: str | None) -> Denoiser:
        """The same model, asked about so many images at a time, and with another caption."""
        other = copy(self)
        other.batch_images, other.prompt = 1 if self.one_by_one else images, prompt
        return other

    def run(
        self, count: int, run: Callable[[Denoiser, list[int]], Sequence[Answer]], *, budget: int
    ) -> list[Answer]:
        """Run a function over micro-batches of images; see :func:`run_on_images`.

        Parameters
        ----------
        run : from a model, which is this one or a twin of it, and a batch to its answers.
        budget : images at once.
        """
        models = self._lanes()
        return run_on_images(count, *(partial(run, model) for model in models), budget=budget)

    def _lanes(self) -> list[Denoiser]:
        """This model for each batch that is run side by side, with its share of the memory."""
        lanes, _ = lanes_here()
        if lanes == 1 or not isinstance(self.network, Network):
            return [self]
        networks = self.network.lanes(lanes)
        latents: Sequence[Latents | None] = [None] * lanes
        if self.autoencoder is not None:
            latents = self.autoencoder.lanes(lanes)
        twins = [copy(self) for _ in range(min(len(networks), len(latents)))]
        for twin, network, autoencoder in zip(twins, networks, latents, strict=False):
            twin.network, twin.autoencoder = network, autoencoder
            twin.batch_images = max(1, self.batch_images // lanes)
        return twins or [self]

    def caption_of(self, payload: Mapping[str, Any]) -> str:
        """The caption that a record is asked about with."""
        return (payload["caption"] or "") if self.prompt is None else self.prompt

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Take images float32 [batch, channels, height, width] in [0, 1] to what is denoised."""
        centered = images.to(self.device, torch.float32) * 2 - 1
        return centered if self.autoencoder is None else self.autoencoder.encode(centered)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Take what is denoised back to images in [0, 1]."""
        centered = latents if self.autoencoder is None else self.autoencoder.decode(latents)
        return (centered / 2 + 0.5).clamp(0, 1)

    def at(self, steps: Sequence[float]) -> Tensor:
        """Places on the path, timesteps or shares of it, as timesteps [places]."""
        return torch.tensor([self.path.timestep(step) for step in steps], device=self.device)

    @torch.inference_mode()
    def predict(
        self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str] | None = None
    ) -> Tensor:
        """What the network predicts of x_t, be it noise, the image or a velocity.

        Parameters
        ----------
        noisy : float32 [batch, *latent_shape].
        timesteps : [batch]; whole but in flow matching.
        captions : of each image, for a model with text; None is the one of all, or the empty one.

        Returns
        -------
        float32 [batch, *latent_shape], whatever the weights' precision.
        """
        condition: Condition = {}
        if self.embed is not None:
            condition = self.embed(captions or [self.prompt or ""] * len(noisy))
        output = self.network(noisy, timesteps.to(self.device), condition).float()
        return output[:, : noisy.shape[1]]  # a learned variance follows the prediction

    @torch.inference_mode()
    def predict_noise(
        self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str] | None = None
    ) -> Tensor:
        """The noise that the model sees in x_t, by :meth:`predict`, which says what is given."""
        output = self.predict(noisy, timesteps, captions)
        return self.path.noise_in(noisy, output, timesteps.to(self.device))


class Latents:
    """A latent diffusion model's autoencoder, with the scale that the model was trained on."""

    def __init__(self, autoencoder: Any, scale: float, shift: float) -> None:
        self.autoencoder = autoencoder
        self.scale, self.shift = scale, shift
        self._twins = Twins(autoencoder)

    def lanes(self, count: int) -> list[Latents]:
        """The same for each batch that is run side by side; none where that cannot be."""
        return [Latents(one, self.scale, self.shift) for one in self._twins.of(count)]

    def encode(self, centered: Tensor) -> Tensor:
        """The mode of the latents' distribution: no draw, so that a record has one latent."""
        found = self.autoencoder.encode(centered.to(self.autoencoder.dtype))
        mode: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found[0]
        return (mode.float() - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        unscaled = latents / self.scale + self.shift
        decoded: Tensor = self.autoencoder.decode(unscaled.to(self.autoencoder.dtype)).sample
        return decoded.float()


class DenoiserFamily:
    """Diffusion models on one base, which is in memory once; one of them is ready at a time.

    Parameters
    ----------
    checkpoints : of one folder, quantization and dtype.
    batch_images : per forward pass, at most, for each.

    Raises
    ------
    AdapterError
        Naming an adapter that cannot be put on the base.
    InputError
        If tensors of the base's weights are missing.
    """

    def __init__(
        self, checkpoints: Sequence[DenoiserCheckpoint], batch_images: Sequence[int]
    ) -> None:
        first = checkpoints[0]
        folder = Folder(first.path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = DTYPES[first.dtype]
        network = load_part(folder, first.network, dtype, **_quantization(first, dtype)).eval()
        asked = None if first.quantization == "none" else first.quantization
        # Convolutions are up to a third faster with the channels of a pixel side by side.
        network = put_on(
            device, network, first.network.saved_as or asked, memory_format=torch.channels_last
        )
        encoders = {
            part.folder: load_text_encoder(folder, part, dtype, device)
            for part in first.text_encoders
        }
        twins = Twins(network)
        self._switch = LoraSwitch(
            {"": network, **{name: encoder.model for name, encoder in encoders.items()}}, twins
        )
        for checkpoint in checkpoints:
            for one in checkpoint.adapters:
                if one.placed:
                    self._switch.put_on(one.file, one.placed)
        self._encoders = encoders
        self._captions = _captions(first, encoders)
        model = Denoiser(
            Network(network, dtype, first, twins),
            load_path(folder / first.scheduler_folder, first.path, first.query.told),
            shape=first.shape,
            latent_shape=first.latent_shape,
            batch_images=batch_images[0],
            device=device,
            autoencoder=_latents(folder, first.autoencoder, device),
            embed=self._captions,
            one_by_one=first.one_by_one,
        )
        self._adapters = [checkpoint.adapters for checkpoint in checkpoints]
        self._models = [
            model.with_batches(images, checkpoint.query.prompt)
            for checkpoint, images in zip(checkpoints, batch_images, strict=True)
        ]

    def use(self, number: int) -> Denoiser:
        """The model of a checkpoint, ready to be asked; the one before is so no longer."""
        adapters = self._adapters[number]
        self._switch.use([one for one in adapters if one.placed])
        for name, encoder in self._encoders.items():
            learned = [
                (word, one.file) for one in adapters for word in one.words if word.part == name
            ]
            encoder.learn([word for word, _ in learned], [file for _, file in learned])
        if self._captions is not None:
            self._captions.forget()
        return self._models[number]


def load_denoiser(checkpoint: DenoiserCheckpoint, *, batch_images: int) -> Denoiser:
    """Load a diffusers pipeline's folder, with its adapter where it has one; see
    :class:`DenoiserFamily`."""
    return DenoiserFamily([checkpoint], [batch_images]).use(0)


def load_part(folder: Folder, part: Part, dtype: torch.dtype, **options: Any) -> Any:
    """A part of a pipeline that diffusers has a class for."""
    require("diffusers", "diffusion models")
    import diffusers

    kind = getattr(diffusers, part.kind)
    if part.file is not None:
        tensors = tensors_of(Folder(part.file), part.folder, part.kind)
        with LOADING, silenced("bitsandbytes", "diffusers.models.modeling_utils"):
            return kind.from_single_file(
                tensors, config=str(folder), subfolder=part.folder, torch_dtype=dtype,
                local_files_only=True, **options,
            )  # fmt: skip
    if part.variant is not None:
        options["variant"] = part.variant
    return load_whole(kind, folder / part.folder, torch_dtype=dtype, **options)


def put_on(device: torch.device, model: Any, quantized: str | None, **layout: Any) -> Any:
    """A part on the device where it is asked.

    bitsandbytes puts what it reads on the GPU; what torchao saved lies where it was read.

    Parameters
    ----------
    quantized : how its weights are quantized in memory; None where they are not.
    layout : of weights that are not quantized, for :meth:`torch.nn.Module.to`.
    """
    if quantized is None:
        return model.to(device, **layout)
    return model.to(device) if quantized == TORCHAO else model


def _quantization(checkpoint: DenoiserCheckpoint, dtype: torch.dtype) -> dict[str, Any]:
    if checkpoint.quantization == "none":
        return {}
    require("bitsandbytes", "quantized models")
    from diffusers import BitsAndBytesConfig

    if checkpoint.quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=checkpoint.quantization,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def load_path(folder: Folder, where: str, told: Told) -> Path:
    """The path to noise of the scheduler in a folder.

    Parameters
    ----------
    told : what was otherwise in training.
    """
    scheduler = read_scheduler(folder, where)
    prediction = prediction_of(scheduler)
    if prediction == FLOW:
        return Flow(int(scheduler.config.num_train_timesteps))
    kept = kept_by(scheduler, told.zero_terminal_snr)
    return Diffusion(kept, told.prediction or prediction)


def _captions(
    checkpoint: DenoiserCheckpoint, encoders: Mapping[str, TextEncoder]
) -> Captions | None:
    read, query = checkpoint.face.read, checkpoint.query
    if read is None:
        return None
    return Captions(
        lambda captions: read(encoders, captions, query),
        one_by_one=checkpoint.reads_one_by_one,
    )


@dataclass(frozen=True)
class Network:
    """A diffusers network as a :class:`Denoiser` asks it."""

    module: Any
    dtype: torch.dtype
    checkpoint: DenoiserCheckpoint
    twins: Twins | None

    def lanes(self, count: int) -> list[Network]:
        """The same for each batch that is run side by side; none where that cannot be."""
        copies = [] if self.twins is None else self.twins.of(count)
        return [replace(self, module=one, twins=None) for one in copies]

    def __call__(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        if self.module.training:
            raise RuntimeError("a model is scored in evaluation mode")
        noisy = noisy.to(self.dtype)
        return ask_network(self.module, self.checkpoint, noisy, timesteps, condition)


def ask_network(
    model: Any, checkpoint: DenoiserCheckpoint, noisy: Tensor, timesteps: Tensor, given: Condition
) -> Tensor:
    """What a diffusers network predicts of x_t; hides how the networks' calls differ.

    Parameters
    ----------
    checkpoint : that the network is of, or made like.
    given : embedded captions, for a network with text.

    Returns
    -------
    [batch, channels, ...]; a learned variance follows the prediction.
    """
    return checkpoint.face.ask(model, noisy, timesteps, given, checkpoint.query)


def _latents(folder: Folder, part: Part | None, device: torch.device) -> Latents | None:
    """The pipeline's autoencoder, in float32: half precision overflows in some of them."""
    if part is None:
        return None
    autoencoder = put_on(device, load_part(folder, part, torch.float32).eval(), part.saved_as)
    shift = getattr(autoencoder.config, "shift_factor", None)
    return Latents(autoencoder, float(autoencoder.config.scaling_factor), float(shift or 0.0))
