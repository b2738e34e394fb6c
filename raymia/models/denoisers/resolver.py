"""Diffusion models in folders: what they are, from their configs and headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from raymia.models.checkpoint import Capabilities
from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.faces import FACES, OF_CLASSES, Face, Query, face_of
from raymia.models.denoisers.loader import DenoiserLoader
from raymia.models.denoisers.lora_fit import Placed
from raymia.models.denoisers.networks import (
    Latent,
    check_autoencoder,
    check_face,
    check_kinds,
    check_network,
)
from raymia.models.denoisers.put_on import PutOn, adapters_on, with_adapters
from raymia.models.denoisers.schedules import is_flow, prediction_of, read_scheduler
from raymia.models.denoisers.words import Word
from raymia.models.image_source import (
    CONFIG,
    INDEX,
    SCHEDULER,
    TRANSFORMERS_WEIGHTS,
    ImageFolder,
    ImageModel,
    check_part,
    describe_part,
    refuse_beside,
    weights_of,
)
from raymia.models.saved_quantization import IN_DIFFUSERS, refuse_twice, saved_quantization
from raymia.models.source import file_hash, names_in, read_json
from raymia.spec import PoolSpec
from raymia.spec.models import WeightedAdapter
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.listing import listed
from raymia.util.once import Once
from raymia.util.optional import require

NETWORKS, AUTOENCODERS = ("transformer", "unet"), ("vae", "vqvae")
ADAPTER = "adapter"
"""What a model with one is trained as."""
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
GIVES = frozenset({"weights", "generation", "text_conditioning", "denoiser"})


@dataclass(frozen=True)
class Part:
    """One model of a pipeline.

    Attributes
    ----------
    kind : its class in diffusers or transformers.
    folder : within the pipeline's; "." for a pipeline that lies flat in its folder.
    variant : of its weights' file names, as "fp16"; None for plain ones.
    saved_as : how its weights were quantized when they were saved; None where they were not.
    file : that holds its weights in its authors' layout; None where they lie in its folder.
    """

    kind: str
    folder: str
    variant: str | None
    saved_as: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class DenoiserCheckpoint(ImageModel):
    """A diffusers pipeline.

    Attributes
    ----------
    network, autoencoder, text_encoders : its parts; the first alone is in every pipeline.
    query : how its captions are read and its network is asked.
    parameters : numbers in the network's weights.
    scheduler : class of its noise schedule, which is described in ``scheduler_folder``.
    prediction : what the network predicts, one of ``PREDICTIONS`` or ``FLOW``.
    train_timesteps : length of the noise schedule.
    adapters : LoRAs and learned words on it.
    file : that holds weights, where the folder has their configs.
    """

    network: Part
    autoencoder: Part | None
    text_encoders: tuple[Part, ...]
    query: Query
    parameters: int
    scheduler: str
    scheduler_folder: str
    prediction: str
    train_timesteps: int
    adapters: tuple[PutOn, ...] = ()
    file: str | None = None

    family = "denoiser"
    takes_adapters = True
    what = f"a diffusers pipeline ({INDEX})"

    @classmethod
    def reads(cls, folder: ImageFolder) -> bool:
        return (folder.path / INDEX).is_file() or folder.kind in FACES

    @classmethod
    def resolve(cls, folder: ImageFolder) -> Self:
        path, where = folder.path, folder.where
        folder.once(require, "diffusers", "diffusion models", where=where)
        index = read_json(path / INDEX, where) if (path / INDEX).is_file() else {}
        network, config, parameters = _network(folder, index)
        face = check_face(config, index, path, where)
        check_kinds(config, f"{where}: {path / network.folder / CONFIG}")
        scheduler_folder, scheduler = _scheduler(folder, face)
        autoencoder, latent = _autoencoder(folder, index)
        text_encoders = _text_encoders(folder, index, face)
        check_network(
            config, latent, face, is_captioned=bool(text_encoders), where=where, path=path
        )
        refuse_twice(network.saved_as, folder.quantization, path, where)
        if network.folder != ".":
            refuse_beside(path, set(), folder)
        for part in (network, autoencoder):
            if part is not None:
                check_part(path / part.folder, part.kind, folder)
        for part in text_encoders:
            check_part(path / part.folder, part.kind, folder, TRANSFORMERS_WEIGHTS)
        if folder.quantization != "none" and not folder.on_gpu:
            raise InputError(
                f"{where}: diffusers quantizes on GPUs alone; give the pool a GPU (gpus under "
                "resources) or leave out quantization"
            )
        if folder.quantization != "none":
            folder.once(require, "bitsandbytes", "quantized models", where=where)
        size = config.get("sample_size")
        if size is None and latent is not None and latent.sample_size is not None:
            size = latent.sample_size // latent.scale
        if size is None:
            raise InputError(f"{where}: {path / network.folder / CONFIG} has no sample_size")
        height, width = (size, size) if isinstance(size, int) else size
        channels = config["in_channels"] // face.packs**2
        shape = channels, height, width
        if latent is not None:
            shape = latent.image_channels, height * latent.scale, width * latent.scale
        return cls(
            path=str(path),
            shape=shape,
            latent_shape=(channels, height, width),
            quantization=folder.quantization,
            dtype=folder.dtype,
            network=network,
            autoencoder=autoencoder,
            text_encoders=text_encoders,
            query=Query(config, str(index.get("_class_name")), shape[1:]),
            parameters=parameters,
            scheduler=type(scheduler).__name__,
            scheduler_folder=scheduler_folder,
            prediction=prediction_of(scheduler),
            train_timesteps=int(scheduler.config.num_train_timesteps),
            file=None if folder.file is None else str(folder.file),
        )._with_adapters(folder)

    def _with_adapters(self, folder: ImageFolder) -> Self:
        """The same with the adapters that the audit file names."""
        if not folder.adapters:
            return self
        parts = {"": describe_part(folder.path / self.network.folder, self.network.kind, folder)}
        for part in self.text_encoders:
            place = folder.path / part.folder
            parts[part.folder] = describe_part(place, part.kind, folder, TRANSFORMERS_WEIGHTS)
        return replace(self, adapters=adapters_on(folder, parts))

    def take_fingerprint(self, once: Once) -> str:
        base, parts = super().take_fingerprint(once), self.query.key_parts()
        if self.file is not None:
            base = digest({"base": base, "file": file_hash(Path(self.file), once)})
        own = with_adapters(base, self.adapters, once) if self.adapters else base
        return digest({"model": own, "asked": parts}) if parts else own

    @property
    def adapter_places(self) -> tuple[str, ...]:
        return tuple(one.file for one in self.adapters)

    @property
    def label(self) -> str:
        weighted = len(self.adapters) > 1
        named = [f"{one.weight:g} x {one.file}" if weighted else one.file for one in self.adapters]
        return " + ".join(named) or self.file or self.path

    @property
    def placed(self) -> tuple[Placed, ...]:
        """What its adapters change, one after the other."""
        return tuple(placed for one in self.adapters for placed in one.placed)

    @property
    def words(self) -> tuple[Word, ...]:
        """What its adapters add to its text encoders."""
        return tuple(word for one in self.adapters for word in one.words)

    @property
    def trained_as(self) -> str:
        return ADAPTER if self.adapters else self.family

    def in_folder(self, folder: Path) -> Self:
        """As of any model, asked as this one; of one with an adapter, the base with the adapter in
        the folder."""
        if not self.adapters:
            return as_trained(super().in_folder(folder), self.query.prompt, self.query.size)
        there = ImageFolder(
            Path(self.path), self.path, self.dtype, self.quantization, on_gpu=True, config=None,
            adapters=[WeightedAdapter(path=str(folder))],
        )  # fmt: skip
        made = type(self).resolve(there).with_fingerprint()
        return as_trained(made, self.query.prompt, self.query.size)

    @property
    def is_captioned(self) -> bool:
        """Whether it is conditioned on text."""
        return bool(self.text_encoders)

    @property
    def classes(self) -> int:
        """How many there are that it is told one of; 0 for a model that is told none."""
        return int(self.query.config["num_class_embeds"]) if self.face.name == OF_CLASSES else 0

    @property
    def face(self) -> Face:
        """The family of its network."""
        found = face_of(self.query.config)
        assert found is not None, "others are refused"
        return found

    @property
    def is_flat(self) -> bool:
        """Whether its parts lie in one folder, without subfolders."""
        return self.network.folder == "."

    @property
    def capabilities(self) -> Capabilities:
        lacks = {}
        if not self.is_captioned:
            lacks["text_conditioning"] = "the model is not conditioned on text"
        if self.is_flat:
            lacks["generation"] = (
                "a pipeline that lies flat in its folder cannot be trained; load it with "
                "DDPMPipeline and save_pretrained(folder)"
            )
        if self.file is not None:
            lacks["generation"] = (
                "a pipeline that is one file cannot be trained; load it with diffusers' "
                f"from_single_file({self.file!r}, config={self.path!r}), save it with "
                "save_pretrained(folder), and name the folder"
            )
        if self.network.saved_as is not None:
            lacks["generation"] = (
                f"{self.network.saved_as} weights cannot be trained; audit the model unquantized"
            )
        if len(self.adapters) > 1:
            lacks["generation"] = (
                f"a reference is trained as one adapter, and it has {len(self.adapters)}; merge "
                "them into one, or fuse them into the base"
            )
        elif parts := {one.weights.part for one in self.placed} - {""}:
            lacks["generation"] = (
                f"its adapter changes {listed(sorted(parts))}, and text encoders are not trained"
            )
        elif self.words:
            lacks["generation"] = "a reference is trained as a LoRA, and its adapter is a word"
        return Capabilities(self.family, GIVES - {*lacks}, lacks)

    def loader(self, pool: PoolSpec) -> DenoiserLoader:
        return DenoiserLoader(self, pool.batch_images)

    def describe(self) -> str:
        changed = len({(p.weights.part, p.path) for p in self.placed})
        count = sum(bool(one.placed) for one in self.adapters)
        kind = "DoRA" if any("magnitude" in p.weights.tensors for p in self.placed) else "LoRA"
        loras = f"a {kind}" if count == 1 else f"{count} {kind}s"
        on = f" with {loras} on {changed:,} of its modules" if count else ""
        words = listed([repr(name) for name in dict.fromkeys(word.name for word in self.words)])
        on += f" and the learned {words}" if words else ""
        return (
            f"{self.network.kind}{on}, {self.parameters:,} parameters, {self.scheduler} of "
            f"{self.train_timesteps:,} timesteps, predicts {self.prediction}"
        )


def network_folder(path: Path) -> str:
    """The subfolder of a pipeline's denoising network: ``unet`` or ``transformer``; "." where the
    pipeline lies flat in its folder."""
    index = read_json(path / INDEX) if (path / INDEX).is_file() else {}
    found = _one_of(NETWORKS, path, index)
    return found or ("." if (path / CONFIG).is_file() else "unet")


def _one_of(names: Sequence[str], path: Path, index: Mapping[str, Any]) -> str | None:
    """The subfolder of a pipeline that is there by one of some names; of several, the one that its
    index names."""
    there = [name for name in names if (path / name).is_dir()]
    return next((name for name in there if _given(index, name)), next(iter(there), None))


def _network(folder: ImageFolder, index: Mapping[str, Any]) -> tuple[Part, Mapping[str, Any], int]:
    """The denoising network, its config, and how many parameters it has."""
    path, where = folder.path, folder.where
    name = network_folder(path)
    if not (path / name).is_dir():
        raise InputError(
            f"{where}: {path} is a {index.get('_class_name')} without a unet or a transformer "
            f"(found: {names_in(path)}); raymia asks the denoising network of a DDPM"
        )
    config = read_json(path / name / CONFIG, where)
    kind = str(config.get("_class_name"))
    variant, tensors = weights_of(path / name, kind, folder)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    file = folder.file_of(name)
    return Part(kind, name, variant, _saved_as(path / name, folder), file), config, parameters


def _saved_as(part: Path, folder: ImageFolder) -> str | None:
    settings = read_json(part / CONFIG, folder.where).get("quantization_config")
    return saved_quantization(settings, part / CONFIG, folder.where, folder.once, IN_DIFFUSERS)


def _scheduler(folder: ImageFolder, face: Face) -> tuple[str, Any]:
    for name in ("scheduler", "."):
        if (folder.path / name / SCHEDULER).is_file():
            scheduler = read_scheduler(folder.path / name, folder.where)
            if face.is_flow is not None and face.is_flow != is_flow(scheduler):
                raise InputError(
                    f"{folder.where}: {folder.path / name} has a {type(scheduler).__name__}, and "
                    f"{face.name} was trained by flow matching; copy the pipeline's own scheduler"
                )
            return name, scheduler
    raise InputError(
        f"{folder.where}: {folder.path} has no scheduler/{SCHEDULER}, and without the noise "
        "schedule nothing can be asked; save the whole pipeline with save_pretrained(folder)"
    )


def _autoencoder(
    folder: ImageFolder, index: Mapping[str, Any]
) -> tuple[Part | None, Latent | None]:
    name = _one_of(AUTOENCODERS, folder.path, index)
    lost = [part for part in AUTOENCODERS if _given(index, part)]
    if name is None and lost:
        raise InputError(
            f"{folder.where}: {folder.path} has no {lost[0]}, which its {INDEX} names; copy or "
            "download the whole folder"
        )
    if name is None:
        return None, None
    file = folder.path / name / CONFIG
    latent = check_autoencoder(read_json(file, folder.where), file, folder.where)
    variant, _ = weights_of(file.parent, latent.kind, folder)
    saved_as = _saved_as(file.parent, folder)
    return Part(latent.kind, name, variant, saved_as, folder.file_of(name)), latent


def _text_encoders(folder: ImageFolder, index: Mapping[str, Any], face: Face) -> tuple[Part, ...]:
    """The text encoders of a pipeline, as its family needs them."""
    pipeline, parts = f"{folder.path} is a {index.get('_class_name')}", []
    more = [p for p in ENCODERS if _given(index, p) and p not in face.encoders]
    if more:
        raise InputError(
            f"{folder.where}: {pipeline} with {listed(more)}, and raymia asks {face.name} "
            f"with {listed([*face.encoders]) or 'no text encoder'}"
        )
    for name, kinds in face.encoders.items():
        kind = _given(index, name)
        if kind is None:
            continue  # its network is looked at next
        if kind not in kinds:
            raise InputError(
                f"{folder.where}: {pipeline}, whose {name} is a {kind}; raymia reads captions of "
                f"{face.name} with a {' or '.join(kinds)} there"
            )
        variant, _ = weights_of(folder.path / name, kind, folder, TRANSFORMERS_WEIGHTS)
        saved_as = _saved_as(folder.path / name, folder)
        parts.append(Part(kind, name, variant, saved_as, folder.file_of(name)))
    lost = [p for p in face.encoders if not _given(index, p) and p not in face.optional]
    if parts and lost:
        raise InputError(
            f"{folder.where}: {pipeline} without {listed(lost)}, which {face.name} reads captions "
            "with; save the whole pipeline with save_pretrained(folder)"
        )
    return tuple(parts)


def _given(index: Mapping[str, Any], part: str) -> str | None:
    """The class of a part that an index names; None where the pipeline has none."""
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] else None
