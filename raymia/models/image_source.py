"""Where an image model's files are, what kind of model they are, and what they hash to.

Three families: a ``denoiser`` is a diffusers pipeline (model_index.json), an ``autoencoder`` is
diffusers' AutoencoderKL or one of raymia's own, and ``pixels`` is a transformers model that
predicts pixel by pixel. Of the family ``samples`` nothing is to be had but what they generated.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raymia.models.source import PICKLES, locate, read_json
from raymia.spec import ModelSpec
from raymia.spec.images import Shape
from raymia.storage.safetensors import check_whole
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.once import Once
from raymia.util.optional import require

Family = Literal["denoiser", "autoencoder", "pixels", "samples"]
OWN_AUTOENCODER = "raymia.autoencoder"
"""``_class_name`` in the config of raymia's own autoencoders."""

HASHED = {".safetensors", ".json", ".txt", ".model"}
_PROVENANCE = {
    "_name_or_path",
    "_diffusers_version",
    "transformers_version",
    "torch_dtype",
    "dtype",
}


@dataclass(frozen=True)
class ImageCheckpoint:
    """An image model resolved to a local folder; small and JSON-serializable, for actors.

    Attributes
    ----------
    path : the folder.
    family : what it answers; see the module.
    shape : channels, height and width of the images it takes, in pixels.
    latent_shape : of what its network sees; equal to ``shape`` but in latent diffusion.
    train_timesteps : length of a denoiser's noise schedule; 0 for other families.
    is_captioned : whether a denoiser is conditioned on text.
    fingerprint : hash of the files' content, the quantization and the precision.
    """

    path: str
    family: Family
    shape: Shape
    latent_shape: Shape
    quantization: str
    dtype: str
    train_timesteps: int = 0
    is_captioned: bool = False
    fingerprint: str = ""

    @property
    def label(self) -> str:
        """What plans and reports call it."""
        return self.path

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def resolve_image_model(
    spec: ModelSpec, where: str, *, on_gpu: bool, once: Once | None = None
) -> ImageCheckpoint:
    """Find an image model's files, refuse what may not be loaded, and take its fingerprint.

    Parameters
    ----------
    once : of all models that are resolved together.

    Raises
    ------
    InputError
        If the folder is missing or of no family, lacks a part such as the scheduler, or has weights
        in pickle files alone, or damaged.
    """
    once = once or Once()
    path = once(locate, spec.model, spec.revision, where=where)
    dtype = spec.dtype if spec.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    found = once(_kind_of_model, path, where=where)
    if found["family"] == "denoiser":
        once(require, "diffusers", "diffusion models", where=where)
    checkpoint = ImageCheckpoint(
        path=str(path), quantization=spec.quantization, dtype=dtype, **found
    )
    if spec.quantization != "none" and checkpoint.family != "denoiser":
        raise InputError(
            f"{where}: only diffusion models can be quantized here, and {path} is of the family "
            f"{checkpoint.family}; leave out quantization"
        )
    if spec.quantization != "none" and not on_gpu:
        raise InputError(
            f"{where}: diffusers quantizes on GPUs alone; give the pool a GPU (gpus under "
            "resources) or leave out quantization"
        )
    if spec.quantization != "none":
        once(require, "bitsandbytes", "quantized models", where=where)
    return replace(checkpoint, fingerprint=image_fingerprint(checkpoint, once))


def image_fingerprint(checkpoint: ImageCheckpoint, once: Once | None = None) -> str:
    """Hash everything in a checkpoint that can change an answer; where it lies is no part of it."""
    return digest(
        {
            "files": (once or Once())(_content_hashes, Path(checkpoint.path)),
            "quantization": checkpoint.quantization,
            "dtype": checkpoint.dtype,
        }
    )


def _content_hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in HASHED)
    relevant = [p for p in files if p.name not in ("manifest.json", "facts.json", "training.json")]
    return {str(p.relative_to(folder)): _content_hash(p) for p in relevant}


def network_folder(path: Path) -> str:
    """The subfolder of a pipeline's denoising network: ``unet`` or ``transformer``."""
    return "transformer" if (path / "transformer").is_dir() else "unet"


def _kind_of_model(path: Path, where: str) -> dict[str, Any]:
    """Fields of the checkpoint that its configs give."""
    if (path / "model_index.json").is_file():
        return _pipeline(path, where)
    return _single_model(path, where)


def _pipeline(path: Path, where: str) -> dict[str, Any]:
    index = read_json(path / "model_index.json", where)
    network = network_folder(path)
    config = read_json(path / network / "config.json", where)
    _check_weights(path / network, where)
    if not (path / "scheduler" / "scheduler_config.json").is_file():
        raise InputError(
            f"{where}: {path} has no scheduler/scheduler_config.json, and without the noise "
            "schedule nothing can be asked; save the whole pipeline with save_pretrained(folder)"
        )
    scheduler = read_json(path / "scheduler" / "scheduler_config.json", where)
    size = config.get("sample_size")
    if size is None:
        raise InputError(f"{where}: {path / network / 'config.json'} has no sample_size")
    height, width = (size, size) if isinstance(size, int) else size
    channels = int(config["in_channels"])
    latent_shape = (channels, int(height), int(width))
    autoencoder = next((path / name for name in ("vae", "vqvae") if (path / name).is_dir()), None)
    if autoencoder is not None:
        vae = read_json(autoencoder / "config.json", where)
        _check_weights(autoencoder, where)
        if vae.get("scaling_factor") is None:
            raise InputError(
                f"{where}: {autoencoder / 'config.json'} has no scaling_factor, the scale of the "
                "latents that the model was trained on; add it"
            )
        scale = 2 ** (len(vae["block_out_channels"]) - 1)
        channels, height, width = int(vae["in_channels"]), height * scale, width * scale
    captioned = index.get("text_encoder", [None])[0] is not None
    if captioned:
        _check_weights(path / "text_encoder", where)
    return {
        "family": "denoiser",
        "shape": (channels, int(height), int(width)),
        "latent_shape": latent_shape,
        "train_timesteps": int(scheduler.get("num_train_timesteps", 1000)),
        "is_captioned": captioned,
    }


def _single_model(path: Path, where: str) -> dict[str, Any]:
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{where}: {path} has neither model_index.json (a diffusers pipeline) nor config.json "
            f"(an autoencoder); found: {found}"
        )
    config = read_json(path / "config.json", where)
    _check_weights(path, where)
    name = config.get("_class_name")
    if name == OWN_AUTOENCODER:
        return _of_pixels("autoencoder", *config["image_shape"])
    if name == "AutoencoderKL":
        require("diffusers", "models of the class AutoencoderKL", where)
        size = int(config["sample_size"])
        return _of_pixels("autoencoder", int(config["in_channels"]), size, size)
    if config.get("model_type") == "imagegpt":
        side = int(config["n_positions"] ** 0.5)
        return _of_pixels("pixels", 3, side, side)
    kind = name or config.get("model_type")
    raise InputError(
        f"{where}: {path} is a {kind}, and images are scored against diffusers pipelines, "
        "AutoencoderKL, raymia's autoencoders and ImageGPT"
    )


def _of_pixels(family: Family, *shape: int) -> dict[str, Any]:
    return {"family": family, "shape": shape, "latent_shape": shape}


def _check_weights(folder: Path, where: str) -> None:
    found = sorted(folder.glob("*.safetensors"))
    for file in found:
        check_whole(file, where)
    if found:
        return
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
    held = f"its weights in {', '.join(pickles[:3])} only" if pickles else "no weights"
    raise InputError(
        f"{where}: {folder} has {held}, and raymia reads safetensors; save it again with "
        "save_pretrained(folder), which writes them"
    )


def _content_hash(path: Path) -> str:
    if path.name not in ("config.json", "model_index.json", "scheduler_config.json"):
        return digest_file(path)
    config = json.loads(path.read_text(encoding="utf-8"))
    return digest({key: value for key, value in config.items() if key not in _PROVENANCE})
