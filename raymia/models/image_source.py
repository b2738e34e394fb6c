"""Models of images in folders: of which family they are, and what they hash to."""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import raymia.models
from raymia.models.checkpoint import AnyCheckpoint, FileCheckpoint
from raymia.models.config_bounds import refuse_many
from raymia.models.fit import Described, check_fit, read_transformers_config
from raymia.models.original_layout import headers_of, parts_in
from raymia.models.single_file import SAFE, refuse_single_file
from raymia.models.source import (
    PROVENANCE,
    config_hash,
    content_hashes,
    locate,
    names_in,
    read_json,
    refuse_adapter_beside,
    weight_map,
    weights_in,
)
from raymia.spec import ModelSpec
from raymia.spec.images import Shape
from raymia.spec.models import WeightedAdapter
from raymia.storage.safetensors import TensorHeader, read_header
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.listing import listed
from raymia.util.once import Once

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS = "diffusion_pytorch_model", "model"
"""What the names of weights' files begin with."""
ORIGINALS = ("model.diffusion_model.", "model.double_layers.", "double_blocks.", "encoder.down.")
"""What the names of tensors begin with in files that hold a pipeline, its network or its
autoencoder once more, in the layout of their authors."""
EXAMPLES = {"sd_xl_offset_example-lora_1.0.safetensors"}
"""Files that are published in a base's folder and are none of it: SDXL's example of a LoRA."""
HASHED = {".safetensors", ".json", ".txt", ".model"}
IGNORED = {"manifest.json", "facts.json", "training.json"}
NO_CONTENT = PROVENANCE | {"_diffusers_version"}
"""Keys of configs that record where a model came from and not what it computes."""


@dataclass(frozen=True)
class ImageFolder:
    """A folder that should hold a model of images, and what is asked of it.

    Attributes
    ----------
    where : the key it stands under in the audit file, for messages.
    dtype, quantization : that it is to be loaded in.
    config : of a single model; None where the folder has none.
    adapters : as the audit file has them; none for the model alone.
    in_a_list : whether it has them in a list.
    file : that holds weights in its authors' layout, where the folder has configs; None where all
        weights lie in the folder.
    in_file : the parts whose weights are in it.
    """

    path: Path
    where: str
    dtype: str
    quantization: str
    on_gpu: bool
    config: dict[str, Any] | None
    once: Once = field(default_factory=Once)
    adapters: Sequence[WeightedAdapter] = ()
    in_a_list: bool = False
    file: Path | None = None
    in_file: frozenset[str] = frozenset()

    @property
    def where_adapter(self) -> str:
        """The key that the adapter stands under."""
        return f"{self.where.removesuffix('.model')}.adapter"

    def where_one(self, number: int) -> str:
        """The key that one of the adapters stands under."""
        return f"{self.where_adapter}[{number}].path" if self.in_a_list else self.where_adapter

    def file_of(self, part: str) -> str | None:
        """The file that a part's weights are in; None where they lie in the part's folder."""
        return str(self.file) if part in self.in_file else None

    @property
    def kind(self) -> str:
        """What its config says it is."""
        config = self.config or {}
        return str(config.get("_class_name") or config.get("model_type"))


def variant_in(
    part: Path, stem: str, folder: ImageFolder
) -> tuple[str | None, dict[str, TensorHeader]]:
    """The variant of a part's weights that is loaded, and their tensors.

    Parameters
    ----------
    part : a folder within that of a model.
    stem : of the names of its weights' files.

    Returns
    -------
    What stands in the names of the files, as "fp16"; None for plain ones, which come first.

    Raises
    ------
    InputError
        If there are no weights in safetensors, or several variants and none is plain.
    """
    name = re.compile(rf"{stem}(\.(?P<variant>[\w]+))?(-\d+-of-\d+)?\.safetensors")
    found = [match for file in part.iterdir() if (match := name.fullmatch(file.name))]
    variants = {match["variant"] for match in found}
    refuse_beside(part, {match[0] for match in found}, folder)
    refuse_adapter_beside(part, folder.where)
    for index in sorted(part.glob(f"{stem}*.index*.json")):
        weight_map(index, folder.where)
    if len(variants) > 1 and None not in variants:
        raise InputError(
            f"{folder.where}: {part} has its weights in several variants and none is plain: "
            f"{', '.join(sorted(match[0] for match in found))}; leave one of them there"
        )
    variant = None if None in variants or not variants else variants.pop()
    names = stem if variant is None else f"{stem}.{variant}"
    tensors: dict[str, TensorHeader] = {}
    for pattern in (f"{names}.safetensors", f"{names}-*-of-*.safetensors"):
        if any(part.glob(pattern)):
            tensors |= weights_in(part, folder.where, folder.once, pattern)
    return variant, tensors or weights_in(part, folder.where, folder.once, f"{stem}.safetensors")


def refuse_beside(part: Path, known: set[str], folder: ImageFolder) -> None:
    """Refuse weights beside a part's own, as those of a LoRA, which nobody loads; an adapter of the
    model is loaded.

    Parameters
    ----------
    known : names of the files of the part's own.
    """
    named = {Path(one.path).expanduser().resolve() for one in folder.adapters}
    beside = sorted(
        file.name
        for file in part.glob("*.safetensors")
        if file.name not in known | EXAMPLES
        and file.resolve() not in named
        and not _is_original(file, folder)
    )
    if beside:
        raise InputError(
            f"{folder.where}: {part} holds {listed(beside)} beside the weights that are loaded, "
            "and the model would be scored without; name the file of a LoRA as `adapter`, or take "
            "out what does not belong to the model"
        )


def _is_original(file: Path, folder: ImageFolder) -> bool:
    """Whether a file is what lies in the folder once more, in the layout of its authors."""
    names = folder.once(read_header, file, where=folder.where)
    is_adapter = any("lora" in name or "hada" in name or "lokr" in name for name in names)
    return not is_adapter and any(name.startswith(ORIGINALS) for name in names)


def weights_of(
    part: Path, kind: str, folder: ImageFolder, stem: str = DIFFUSERS_WEIGHTS
) -> tuple[str | None, dict[str, TensorHeader]]:
    """The variant of a part's weights and their tensors, wherever they are; see
    :func:`variant_in` and :func:`describe_part`."""
    if folder.file is None or part.name not in folder.in_file:
        return variant_in(part, stem, folder)
    config = _config_of(part, folder, stem)
    return None, headers_of(folder.file, part.name, kind, config, folder.where, folder.once)


def _config_of(part: Path, folder: ImageFolder, stem: str) -> Any:
    """A part's config, by the library that loads it."""
    config = folder.once(read_json, part / CONFIG, where=folder.where)
    refuse_many(config, f"{folder.where}: {part / CONFIG}")
    if stem == DIFFUSERS_WEIGHTS:
        return config
    return folder.once(read_transformers_config, part, where=folder.where)


def check_part(part: Path, kind: str, folder: ImageFolder, stem: str = DIFFUSERS_WEIGHTS) -> None:
    """Refuse weights that are not those that a part's config describes; see
    :func:`describe_part`."""
    check_fit(describe_part(part, kind, folder, stem), part, folder.where, folder.once)


def describe_part(
    part: Path, kind: str, folder: ImageFolder, stem: str = DIFFUSERS_WEIGHTS
) -> Described:
    """A part of a model as its config and headers describe it.

    Parameters
    ----------
    part : a folder within that of a model.
    kind : its class in diffusers, or the class of transformers that loads it.
    stem : of the names of its weights' files, by which the library is known.
    """
    _, tensors = weights_of(part, kind, folder, stem)
    config = _config_of(part, folder, stem)
    return Described(kind, config_hash(part, folder.once), frozenset(tensors.items()), config)


@dataclass(frozen=True)
class ImageCheckpoint(AnyCheckpoint):
    """What is given of a model of images.

    Attributes
    ----------
    shape : channels, height and width of the images it takes, in pixels.
    latent_shape : of what its network sees; equal to ``shape`` but in latent diffusion.
    """

    shape: Shape
    latent_shape: Shape


@dataclass(frozen=True)
class ImageModel(FileCheckpoint, ImageCheckpoint):
    """A model of images in a folder; each family has a subclass, found by
    :func:`resolve_image_model`."""

    what: ClassVar[str]
    """Which folders are of the family, for messages."""
    takes_adapters: ClassVar[bool] = False

    @property
    def adapter_places(self) -> tuple[str, ...]:
        """Files of the adapters on it."""
        return ()

    @property
    def trained_as(self) -> str:
        """As what references of it are trained."""
        return self.family

    @classmethod
    @abstractmethod
    def reads(cls, folder: ImageFolder) -> bool:
        """Whether a folder is of this family."""

    @classmethod
    @abstractmethod
    def resolve(cls, folder: ImageFolder) -> Self:
        """The model in a folder of this family, without a fingerprint.

        Raises
        ------
        InputError
            If it cannot be asked, or lacks a part.
        """

    def in_folder(self, folder: Path) -> Self:
        """A model of this one's family in another folder, as one that was trained like it."""
        config = read_json(folder / CONFIG, str(folder)) if (folder / CONFIG).is_file() else None
        there = ImageFolder(
            folder, str(folder), self.dtype, self.quantization, on_gpu=True, config=config
        )
        return type(self).resolve(there).with_fingerprint()

    def take_fingerprint(self, once: Once) -> str:
        return digest(
            {
                "files": once(_hashes_in, Path(self.path), self.adapter_places, once),
                "quantization": self.quantization,
                "dtype": self.dtype,
            }
        )


def _hashes_in(folder: Path, adapters: Sequence[str], once: Once) -> dict[str, str]:
    """Hashes of what is loaded from a folder, without adapters that lie there too."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in HASHED)
    found = [p for p in found if str(p.resolve()) not in adapters]
    files = {str(p.relative_to(folder)): p for p in found if p.name not in IGNORED}
    return content_hashes(files, (CONFIG, INDEX, SCHEDULER), NO_CONTENT, once)


def resolve_image_model(
    spec: ModelSpec, where: str, *, on_gpu: bool, once: Once | None = None
) -> ImageModel:
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
    if spec.config is None:
        refuse_single_file(spec.model, where)
        path = once(locate, spec.model, spec.revision, where=where)
    else:
        path = _config_folder(spec.config, where)
    dtype = spec.dtype if spec.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    config = read_json(path / CONFIG, where) if (path / CONFIG).is_file() else None
    folder = ImageFolder(
        path, where, dtype, spec.quantization, on_gpu, config, once,
        adapters=spec.adapters_on_it, in_a_list=isinstance(spec.adapter, list),
    )  # fmt: skip
    if spec.config is not None:
        folder = _with_file(folder, spec.model)
    for family in image_families():
        if family.reads(folder):
            if folder.adapters and not family.takes_adapters:
                raise InputError(
                    f"{folder.where_adapter}: adapters are read on diffusion models, and {path} is "
                    f"of the family {family.family}"
                )
            return family.resolve(folder).with_fingerprint(once)
    known = "; ".join(family.what for family in image_families())
    if config is None:
        raise InputError(
            f"{where}: {path} has neither {INDEX} (a diffusers pipeline) nor {CONFIG} (a single "
            f"model); found: {names_in(path)}"
        )
    raise InputError(
        f"{where}: {path} is a {folder.kind}, and images are scored against these: {known}"
    )


def _config_folder(name: str, where: str) -> Path:
    """The local folder that says what the parts of one file are."""
    path = Path(name).expanduser()
    if not (path / INDEX).is_file():
        raise InputError(
            f"{where.removesuffix('.model')}.config: {name} has no {INDEX} on this machine; give "
            "the local folder of a diffusers pipeline"
        )
    return path.resolve()


def _with_file(folder: ImageFolder, name: str) -> ImageFolder:
    """The same with the file of weights that a model is; see :func:`parts_in`."""
    file, where = Path(name).expanduser(), folder.where
    if not file.is_file() or file.suffix != SAFE:
        raise InputError(
            f"{where}: {name} should be a {SAFE} file, as a `config` stands beside it; leave out "
            "`config` where the model is a folder"
        )
    index = read_json(folder.path / INDEX, where)
    kinds = {
        part: str(entry[1])
        for part, entry in index.items()
        if isinstance(entry, list)
        and len(entry) == 2
        and entry[0]
        and (folder.path / part / CONFIG).is_file()
    }
    held = folder.once(parts_in, file.resolve(), tuple(kinds.items()), where=where)
    return replace(folder, file=file.resolve(), in_file=held)


def image_families() -> list[type[ImageModel]]:
    """The families of models of images: those of the folders here that have one."""
    for folder in pkgutil.iter_modules(raymia.models.__path__, "raymia.models."):
        if folder.ispkg:
            importlib.import_module(f"{folder.name}.resolver")
    return sorted(ImageModel.__subclasses__(), key=lambda family: family.__name__)


def check_unquantized(folder: ImageFolder, family: str) -> None:
    """Refuse a quantization of a model that is none of diffusion.

    Raises
    ------
    InputError
        Naming the family.
    """
    if folder.quantization != "none":
        raise InputError(
            f"{folder.where}: only diffusion models can be quantized here, and {folder.path} is of "
            f"the family {family}; leave out quantization"
        )
