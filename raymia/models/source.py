"""Where a checkpoint's files are, whether they may be loaded, and what they hash to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from raymia.storage.downloads import ORIGINS, Origin, Part, download_folder
from raymia.storage.refusals import refusals
from raymia.storage.remote import filesystem
from raymia.storage.safetensors import TensorHeader, read_header
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.listing import FEW, listed
from raymia.util.once import Once
from raymia.util.regular_files import check_is_file
from raymia.util.strict_json import parse_json

ALLOWED_FILES = [
    "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken", "*.py",
]  # fmt: skip
SMALL_BYTES = 16 * 2**20
"""A file up to here is downloaded whatever it is called, unless it is a pickle: code that came with
a model may read it."""
HASHED_BESIDE = 2**20
"""Bytes of a file from which it is worth a thread to hash it beside others."""

HUB = "hub:"
"""Stands before the name and revision of what came from the model hub."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
OTHERWISE_SAVED = {
    "pytorch_model_fsdp*": "FSDP saved it in shards; put them together: `accelerate merge-weights "
    "{folder}/{name} {folder}`",
    "global_step*": "DeepSpeed saved it in shards; put them together: `python zero_to_fp32.py . . "
    "--safe_serialization` in that folder",
    "*.gguf": "name the file as `gguf_file: {name}`",
    "checkpoint-*": "name a checkpoint of the training, such as {folder}/{name}",
}
"""What is in folders of models whose weights stand elsewhere, and what to do about it."""
PROVENANCE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype"})
"""Keys of config.json that record where a model came from and not what it computes."""

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "model.safetensors"
"""What transformers calls a model's weights; an index of shards is named after it."""
COPIES = re.compile(r"consolidated.*\.safetensors|model\.\w+(-\d+-of-\d+)?\.safetensors")
"""Names of the same weights in another layout or precision, as they are published beside them."""


@dataclass(frozen=True)
class Reads:
    """What is read of a model's folder, and so is downloaded. Of pickles and of other GGUF files
    there is an empty file, since the names say what is wrong with a folder; and of all that is left
    out, the subfolder that it lies in.

    Attributes
    ----------
    weights : in safetensors, of the whole folder, of it without its subfolders, or none.
    gguf_file : its name, where the weights are one.
    """

    weights: Literal["all", "own", "none"] = "all"
    gguf_file: str | None = None

    def __call__(self, name: str, size: int | None) -> Part:
        """See :data:`raymia.storage.downloads.Choice`."""
        file = PurePosixPath(name)
        is_own = len(file.parts) == 1
        is_named = self.gguf_file is not None and file == PurePosixPath(self.gguf_file)
        if file.suffix == ".safetensors":
            reads = self.weights == "all" or (self.weights == "own" and is_own)
            return "whole" if reads else "nothing"
        if is_named or file.suffix == ".gguf":
            return "whole" if is_named else "name"
        known = any(fnmatch(file.name, pattern) for pattern in (*ALLOWED_FILES, "vocab*"))
        if not known and any(fnmatch(file.name, pattern) for pattern in PICKLES):
            return "name"
        is_read = known and (is_own or self.weights == "all")
        return "whole" if is_read or size is None or size <= SMALL_BYTES else "nothing"


def content_hashes(
    files: Mapping[str, Path], configs: Collection[str], ignored: frozenset[str], once: Once
) -> dict[str, str]:
    """Hashes of files' content by their names; those of large ones are taken side by side.

    Parameters
    ----------
    configs : names of the JSON files of which some keys do not count.
    ignored : those keys.
    """
    calls = {
        name: (path, ignored if path.name in configs else None) for name, path in files.items()
    }
    large = [
        call
        for call in dict.fromkeys(calls.values())
        if not once.knows(_content_hash, *call) and call[0].stat().st_size > HASHED_BESIDE
    ]
    if len(large) > 1:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda call: once(_content_hash, *call), large))
    return {name: once(_content_hash, *call) for name, call in calls.items()}


class FilesToHash(Once):
    """Finds which files a fingerprint would hash, and hashes none.

    Attributes
    ----------
    files : that were to be hashed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: set[Path] = set()

    def __call__(self, read: Callable[..., Any], *arguments: Any, where: str | None = None) -> Any:
        if read is not _content_hash:
            return super().__call__(read, *arguments, where=where)
        self.files.add(arguments[0])
        return ""

    def knows(self, read: Callable[..., Any], *arguments: Any) -> bool:
        return read is _content_hash or super().knows(read, *arguments)


class StampedHashes(Once):
    """Hashes of files' content, each once for a state that the file is in; nothing else is kept.

    Parameters
    ----------
    stamp : tells a file's states apart.
    """

    def __init__(self, stamp: Callable[[Path], Hashable]) -> None:
        super().__init__()
        self._stamp = stamp

    def __call__(self, read: Callable[..., Any], *arguments: Any, where: str | None = None) -> Any:
        if read is not _content_hash:
            return Once()(read, *arguments, where=where)
        return super().__call__(_hash_in_state, self._stamp(arguments[0]), *arguments)

    def knows(self, read: Callable[..., Any], *arguments: Any) -> bool:
        return read is _content_hash and super().knows(
            _hash_in_state, self._stamp(arguments[0]), *arguments
        )


def _hash_in_state(_state: Hashable, file: Path, ignored: frozenset[str] | None) -> str:
    return _content_hash(file, ignored)


def config_hash(folder: Path, once: Once) -> str:
    """Hash of what a folder's config.json says of the model."""
    return once(_content_hash, folder / "config.json", PROVENANCE)


def file_hash(file: Path, once: Once) -> str:
    """Hash of a file's bytes."""
    return once(_content_hash, file, None)


def _content_hash(path: Path, ignored: frozenset[str] | None) -> str:
    if ignored is None:
        return digest_file(path)
    config = read_json(path)
    return digest({key: value for key, value in config.items() if key not in ignored})


ALL = Reads()


def locate(name: str, revision: str | None, reads: Reads = ALL, *, where: str) -> Path:
    """Return the local folder of a checkpoint: a path, an fsspec URL, or a hub name.

    Parameters
    ----------
    reads : what is downloaded of a URL.
    where : the key of the audit file that names it.
    """
    with refusals(name, "folder", where):
        if "://" in name:
            fs, path = filesystem(name)
            if not fs.exists(path):
                raise InputError(f"{where}: no such folder: {name}")
            return download_folder(fs, path, reads)
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder.resolve()
        if os.path.lexists(folder) and folder.exists():
            raise InputError(f"{where}: {name} is a file; give the folder of the checkpoint")
        if os.path.lexists(folder):
            raise InputError(f"{where}: {name} is a link to what is not there: {folder.readlink()}")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(f"{where}: no such folder: {name}")
    return _from_hub(name, revision, where)


def _from_hub(name: str, revision: str | None, where: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, revision=revision, allow_patterns=ALLOWED_FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{where}: {name!r} is no folder on this machine, and the model hub did not give it "
            f"({type(error).__name__}); give the path of a local folder, or check the name, the "
            "network and HF_TOKEN"
        ) from None
    ORIGINS[str(path)] = Origin(f"{HUB}{name}@{path.name}")  # a snapshot is named by its commit
    return path


def origins_of(checkpoints: Iterable[Any]) -> dict[str, Origin]:
    """Where the folders of checkpoints came from, as far as they were downloaded, by folder."""
    paths = [
        path
        for c in checkpoints
        for path in (getattr(c, "path", None), *getattr(c, "adapter_places", ()))
    ]
    places = [place for path in paths if path for place in (path, str(Path(path).parent))]
    return {place: ORIGINS[place] for place in places if place in ORIGINS}


def bring(origins: Mapping[str, Origin]) -> None:
    """Download the folders that the driver has downloaded, where this machine lacks them."""
    for path, origin in origins.items():
        if Path(path).exists():
            continue
        if origin.url.startswith(HUB):
            name, _, revision = origin.url.removeprefix(HUB).rpartition("@")
            _from_hub(name, revision, name)
        else:
            download_folder(*filesystem(origin.url), origin.choice)


def read_json(path: Path, where: str = "") -> dict[str, Any]:
    """Read a config file.

    Parameters
    ----------
    where : the key of the audit file that names its folder.

    Raises
    ------
    InputError
        If it is missing, or no JSON object.
    """
    named = f"{where}: {path}" if where else f"{path}"
    with refusals(path, "JSON", where):
        if not os.path.lexists(path):
            raise InputError(f"{named} is missing")
        check_is_file(path)
        content = path.read_bytes()
    try:
        found = parse_json(content)
    except ValueError as error:
        raise InputError(f"{named} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{named} should hold an object, but it holds a {type(found).__name__}")
    return found


def weights_in(
    folder: Path, where: str, once: Once, pattern: str = "*.safetensors"
) -> dict[str, TensorHeader]:
    """The tensors of a folder's weights, by name.

    Parameters
    ----------
    pattern : of the weights' file names.

    Raises
    ------
    InputError
        If there are none in safetensors, or one is damaged.
    """
    found = sorted(folder.glob(pattern))
    tensors: dict[str, TensorHeader] = {}
    for file in found:
        tensors |= once(read_header, file, where=where)
    if found:
        return tensors
    pickles = sorted(p.name for names in PICKLES for p in folder.glob(names))
    if pickles:
        raise InputError(
            f"{where}: {folder} has its weights in {', '.join(pickles[:3])} only, and raymia "
            "unpickles no file it was given (a pickle can run any code). Convert it where you "
            "trust it: load it with its library and save_pretrained(folder), which writes "
            "safetensors"
        )
    raise InputError(
        f"{where}: {folder} has no {pattern} weights (found: {names_in(folder)}); "
        f"{_otherwise_saved(folder)}"
    )


def _otherwise_saved(folder: Path) -> str:
    """What to do about a folder without weights that can be read as they are."""
    for names, hint in OTHERWISE_SAVED.items():
        for found in sorted(folder.glob(names)):
            return hint.format(folder=folder, name=found.name)
    return "save the model there with save_pretrained(folder), or copy the file that is missing"


def model_weights_in(folder: Path, where: str, once: Once) -> dict[str, TensorHeader]:
    """The tensors that transformers loads from a folder, by name.

    Raises
    ------
    InputError
        If there are none, a shard or a part of it is missing, or files of weights lie beside those
        that are loaded.
    """
    whole, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    found = weights_in(folder, where, once)
    if whole.is_file():
        loaded = {WEIGHTS}
        found = once(read_header, whole, where=where)
    elif index.is_file():
        places = weight_map(index, where)
        loaded = set(places.values())
        lost = sorted(name for name in loaded if not (folder / name).is_file())
        if lost:
            raise InputError(
                f"{where}: {folder} lacks {len(lost)} of the {len(loaded)} files that {index.name} "
                f"lists ({listed(lost, FEW)}); copy or download the whole folder"
            )
        found = {}
        for name in sorted(loaded):
            header = once(read_header, folder / name, where=where)
            if twice := sorted(found.keys() & header.keys()):
                raise InputError(
                    f"{where}: {folder / name} holds {len(twice)} tensors that another of its "
                    f"files holds as well ({listed(twice, FEW)}), of which only one can be meant; "
                    "copy or download the whole folder again"
                )
            found |= header
        if lost := sorted(places.keys() - found.keys()):
            raise InputError(
                f"{where}: {index} lists {len(lost)} tensors that its files do not hold "
                f"({listed(lost, FEW)}); copy or download the whole folder, with its own index"
            )
    else:
        raise InputError(
            f"{where}: {folder} has neither {WEIGHTS} nor {index.name} (found: "
            f"{names_in(folder, '*.safetensors')}), and no other weights are loaded; "
            f"{adapter_hint(folder) or 'save the model there with save_pretrained(folder)'}"
        )
    beside = sorted(
        file.name
        for file in folder.glob("*.safetensors")
        if file.name not in loaded and not COPIES.fullmatch(file.name)
    )
    if beside:
        raise InputError(
            f"{where}: {folder} holds {listed(beside, FEW)} beside the weights that are loaded "
            f"({listed(sorted(loaded), FEW)}); give an adapter a folder of its own and name it as "
            "`adapter`, and take out what does not belong to the model"
        )
    refuse_adapter_beside(folder, where)
    return found


def refuse_adapter_beside(folder: Path, where: str) -> None:
    """Refuse an adapter's config beside whole weights: transformers would put the adapter on them,
    from whatever file there is.

    Raises
    ------
    InputError
        Saying what to do with it.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{where}: {folder} holds {ADAPTER_CONFIG} beside whole weights, by which transformers "
            "would load an adapter onto them; take the file out where the adapter was merged, or "
            "give the adapter a folder of its own and name it as `adapter`"
        )


def adapter_hint(folder: Path) -> str:
    """What to do about an adapter that stands where a model should; empty for another folder."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return ""
    return "this is a PEFT adapter: name it as `adapter` and its base as `model`"


def weight_map(index: Path, where: str) -> dict[str, str]:
    """The files of an index by their tensors; all in its own folder, of which the files are hashed.

    Raises
    ------
    InputError
        If it lists none, or files of other folders.
    """
    places = read_json(index, where).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise InputError(f"{where}: {index} has no weight_map from tensors to files")
    elsewhere = sorted({name for name in places.values() if Path(name).name != name})
    if elsewhere:
        raise InputError(
            f"{where}: {index} lists files of other folders ({listed(elsewhere, FEW)}); put the "
            "files beside it, and their bare names into it"
        )
    return places


def names_in(folder: Path, pattern: str = "*") -> str:
    """The first names in a folder, for messages."""
    return ", ".join(sorted(p.name for p in folder.glob(pattern))[:8]) or "nothing"
