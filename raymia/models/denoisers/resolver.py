"""Diffusion models in folders: what they are, from their configs and headers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from raymia.models.checkpoint import Capabilities
from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.faces import FACES, OF_CLASSES, Face, face_of
from raymia.models.denoisers.loader import DenoiserLoader
from raymia.models.denoisers.lora_fit import Placed
from raymia.models.denoisers.networks import (
    check_face,
    check_kinds,
    check_network,
)
from raymia.models.denoisers.one_by_one import alone_parts
from raymia.models.denoisers.parts import (
    Part,
    autoencoder_in,
    network_in,
    refuse_without_gpu,
    text_encoders_in,
)
from raymia.models.denoisers.put_on import PutOn, adapters_on, with_adapters
from raymia.models.denoisers.query import Query
from raymia.models.denoisers.schedules import (
    ends_in_noise,
    is_flow,
    prediction_of,
    read_scheduler,
)
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
)
from raymia.models.saved_quantization import refuse_twice
from raymia.models.source import file_hash, read_json
from raymia.spec import PoolSpec
from raymia.spec.models import WeightedAdapter
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.listing import listed
from raymia.util.once import Once
from raymia.util.optional import require

ADAPTER = "adapter"
"""What a model with one is trained as."""
GIVES = frozenset({"weights", "generation", "text_conditioning", "denoiser"})


@dataclass(frozen=True)
class DenoiserCheckpoint(ImageModel):
    """A diffusers pipeline.

    Attributes
    ----------
    network, autoencoder, text_encoders : its parts; the first alone is in every pipeline.
    query : how its captions are read and its network is asked.
    parameters : numbers in the network's weights.
    scheduler : class of its noise schedule, which is described in ``scheduler_folder``.
    prediction : what the network predicts by its scheduler file, one of ``PREDICTIONS`` or
        ``FLOW``; ``query`` says where it was trained to predict something else.
    train_timesteps : length of the noise schedule.
    ends_in_noise : whether it is rescaled to end in noise alone, by the same file.
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
    ends_in_noise: bool = False
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
        network, config, parameters = network_in(folder, index)
        face = check_face(config, index, path, where)
        check_kinds(config, f"{where}: {path / network.folder / CONFIG}")
        scheduler_folder, scheduler = _scheduler(folder, face)
        autoencoder, latent = autoencoder_in(folder, index)
        text_encoders = text_encoders_in(folder, index, face)
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
        refuse_without_gpu((network, autoencoder), folder)
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
            ends_in_noise=ends_in_noise(scheduler),
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
        base = super().take_fingerprint(once)
        parts = {**self.query.key_parts(), **alone_parts(self)}
        if self.file is not None:
            base = digest({"base": base, "file": file_hash(Path(self.file), once)})
        own = with_adapters(base, self.adapters, once) if self.adapters else base
        return digest({"model": own, "asked": parts}) if parts else own

    @property
    def one_by_one(self) -> bool:
        """Whether it is asked about one image at one timestep at a time, because an image's answer
        depends on its batch; see :attr:`CausalCheckpoint.one_by_one`."""
        parts = (self.network, self.autoencoder)
        return self.quantization == "int8" or any(part and part.rounds_inputs for part in parts)

    @property
    def reads_one_by_one(self) -> bool:
        """Whether captions are read one at a time, for the same reason."""
        return any(part.rounds_inputs for part in self.text_encoders)

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
            return self._asked_alike(super().in_folder(folder))
        there = ImageFolder(
            Path(self.path), self.path, self.dtype, self.quantization, on_gpu=True, config=None,
            adapters=[WeightedAdapter(path=str(folder))],
        )  # fmt: skip
        return self._asked_alike(type(self).resolve(there).with_fingerprint())

    def _asked_alike(self, other: Self) -> Self:
        return as_trained(other, self.query.prompt, self.query.size, self.query.told)

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
        return DenoiserLoader(self, 1 if self.one_by_one else pool.batch_images)

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
            f"{self.train_timesteps:,} timesteps, predicts "
            f"{self.query.told.prediction or self.prediction}"
        )


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
