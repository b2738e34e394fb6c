"""Diffusion models behind one face: images in, predicted noise out.

Whatever a network predicts (noise, velocity or the clean image), in pixels or in an autoencoder's
latents, with or without text, it is asked here for the noise, so that every attack on the noise has
one definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch

from raymia.models.denoisers.lora import LoraSwitch
from raymia.models.denoisers.resolver import (
    PREDICTIONS,
    DenoiserCheckpoint,
    Part,
    read_scheduler,
)
from raymia.models.token_ids import refuse_unknown
from raymia.models.whole_weights import load_whole
from raymia.spec.images import Shape
from raymia.util.errors import InputError
from raymia.util.optional import require

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Tensor = torch.Tensor


class Denoiser:
    """A diffusion model's network, noise schedule and, where it has them, autoencoder and text.

    Parameters
    ----------
    network : from (x_t, timesteps, condition) to the network's output, [batch, channels, ...].
    alphas_cumprod : the schedule's cumulative product of 1 - beta, float64 [timesteps].
    prediction : what the network predicts: "epsilon", "v_prediction" or "sample".
    shape : channels, height and width of the images.
    latent_shape : of what the network sees; equal to ``shape`` without an autoencoder.
    batch_images : largest number of images per forward pass.
    autoencoder : with ``encode`` to and ``decode`` from what the network sees; None for pixels.
    embed : from captions to what the network is conditioned on; None for a model without text.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Any], Tensor],
        alphas_cumprod: Tensor,
        *,
        prediction: str,
        shape: Shape,
        latent_shape: Shape,
        batch_images: int,
        device: torch.device | None = None,
        autoencoder: Latents | None = None,
        embed: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise InputError(
                f"a scheduler's prediction_type should be one of {', '.join(PREDICTIONS)}, but got "
                f"{prediction!r}"
            )
        self.network = network
        self.device = device or torch.device("cpu")
        self.alphas_cumprod = alphas_cumprod.to(self.device, torch.float64)
        self.prediction = prediction
        self.shape = shape
        self.latent_shape = latent_shape
        self.batch_images = batch_images
        self.autoencoder = autoencoder
        self.embed = embed

    def with_batches(self, images: int) -> Denoiser:
        """The same model, asked about so many images at a time."""
        other = copy(self)
        other.batch_images = images
        return other

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

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), float32 [batch, 1, 1, 1] (Ho et al. 2020, eq. 4)."""
        kept = self.alphas_cumprod[timesteps.to(self.device)].reshape(-1, 1, 1, 1)
        return kept.sqrt().float(), (1 - kept).sqrt().float()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) epsilon."""
        signal, sigma = self.coefficients(timesteps)
        return signal * clean + sigma * noise

    @torch.inference_mode()
    def predict_noise(
        self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str] | None = None
    ) -> Tensor:
        """The noise that the model sees in x_t.

        Parameters
        ----------
        noisy : float32 [batch, *latent_shape].
        timesteps : int64 [batch].
        captions : of each image, for a model with text; None is the empty caption.

        Returns
        -------
        float32 [batch, *latent_shape], whatever the weights' precision.
        """
        timesteps = timesteps.to(self.device)
        condition = None
        if self.embed is not None:
            condition = self.embed([""] * len(noisy) if captions is None else captions)
        output = self.network(noisy, timesteps, condition).float()
        output = output[:, : noisy.shape[1]]  # a learned variance follows the prediction
        if self.prediction == "epsilon":
            return output
        signal, sigma = self.coefficients(timesteps)
        if self.prediction == "v_prediction":  # v = signal * noise - sigma * clean
            return signal * output + sigma * noisy
        return (noisy - signal * output) / sigma


class Latents:
    """A latent diffusion model's autoencoder, with the scale that the model was trained on."""

    def __init__(self, autoencoder: Any, scale: float, shift: float) -> None:
        self.autoencoder = autoencoder
        self.scale, self.shift = scale, shift

    def encode(self, centered: Tensor) -> Tensor:
        """The mode of the latents' distribution: no draw, so that a record has one latent."""
        found = self.autoencoder.encode(centered.to(self.autoencoder.dtype))
        mode: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
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
        folder = Path(first.path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = DTYPES[first.dtype]
        network = load_part(folder, first.network, dtype, **_quantization(first, dtype)).eval()
        if first.quantization == "none" and first.network.saved_as is None:
            # Convolutions are up to a third faster with the channels of a pixel side by side.
            network = network.to(device, memory_format=torch.channels_last)
        parts, embed = {"": network}, None
        if first.text_encoder is not None:
            encoder = _text_encoder(folder, first.text_encoder, dtype).to(device)
            parts[first.text_encoder.folder] = encoder
            embed = _text_embedding(folder, encoder)
        self._switch = LoraSwitch(parts)
        for checkpoint in checkpoints:
            if checkpoint.adapter is not None:
                self._switch.put_on(checkpoint.adapter, checkpoint.placed)
        model = Denoiser(
            _network(network, dtype),
            read_scheduler(folder / first.scheduler_folder, first.path).alphas_cumprod,
            prediction=first.prediction,
            shape=first.shape,
            latent_shape=first.latent_shape,
            batch_images=batch_images[0],
            device=device,
            autoencoder=_latents(folder, first.autoencoder, device),
            embed=embed,
        )
        self._adapters = [checkpoint.adapter for checkpoint in checkpoints]
        self._models = [model.with_batches(images) for images in batch_images]

    def use(self, number: int) -> Denoiser:
        """The model of a checkpoint, ready to be asked; the one before is so no longer."""
        self._switch.use(self._adapters[number])
        return self._models[number]


def load_denoiser(checkpoint: DenoiserCheckpoint, *, batch_images: int) -> Denoiser:
    """Load a diffusers pipeline's folder, with its adapter where it has one; see
    :class:`DenoiserFamily`."""
    return DenoiserFamily([checkpoint], [batch_images]).use(0)


def load_part(folder: Path, part: Part, dtype: torch.dtype, **options: Any) -> Any:
    """A part of a pipeline that diffusers has a class for."""
    require("diffusers", "diffusion models")
    import diffusers

    kind = getattr(diffusers, part.kind)
    if part.variant is not None:
        options["variant"] = part.variant
    return load_whole(kind, folder / part.folder, torch_dtype=dtype, **options)


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


def _network(model: Any, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Any], Tensor]:
    def call(noisy: Tensor, timesteps: Tensor, condition: Any) -> Tensor:
        if model.training:
            raise RuntimeError("a model is scored in evaluation mode")
        return ask_network(model, noisy.to(dtype), timesteps, condition)

    return call


def ask_network(model: Any, noisy: Tensor, timesteps: Tensor, condition: Any) -> Tensor:
    """What a diffusers network predicts of x_t; hides how the networks' calls differ.

    Parameters
    ----------
    condition : embedded captions [batch, tokens, width], for a network with text.

    Returns
    -------
    [batch, channels, ...]; a learned variance follows the prediction.
    """
    options: dict[str, Any] = {}
    if condition is not None:
        options["encoder_hidden_states"] = condition
    classes = getattr(model.config, "num_embeds_ada_norm", None)
    if classes is not None:  # the class after the last stands for none
        options["class_labels"] = torch.full_like(timesteps, classes)
    output: Tensor = model(noisy, timesteps, **options).sample
    return output


def _latents(folder: Path, part: Part | None, device: torch.device) -> Latents | None:
    """The pipeline's autoencoder, in float32: half precision overflows in some of them."""
    if part is None:
        return None
    autoencoder = load_part(folder, part, torch.float32).eval().to(device)
    shift = getattr(autoencoder.config, "shift_factor", None)
    return Latents(autoencoder, float(autoencoder.config.scaling_factor), float(shift or 0.0))


def _text_encoder(folder: Path, part: Part, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextModel

    variant = {} if part.variant is None else {"variant": part.variant}
    return load_whole(CLIPTextModel, folder / part.folder, dtype=dtype, **variant).eval()


def _text_embedding(folder: Path, encoder: Any) -> Callable[[Sequence[str]], Tensor]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    length = int(encoder.config.max_position_embeddings)

    def embed(captions: Sequence[str]) -> Tensor:
        unique = list(dict.fromkeys(captions))
        tokens = tokenizer(
            unique, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        refuse_unknown(tokens.input_ids.tolist(), encoder.config.vocab_size, tokenizer)
        states: Tensor = encoder(tokens.input_ids.to(encoder.device))[0]
        return states[[unique.index(caption) for caption in captions]]

    return embed
