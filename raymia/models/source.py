"""Where a checkpoint's files are, whether they may be loaded, and what they hash to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fsspec

from raymia.errors import InputError
from raymia.files import download_folder
from raymia.hashing import digest, digest_file
from raymia.spec import ModelSpec

ALLOWED_FILES = [
    "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken", "*.py",
]  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
# Keys of config.json that record where a model came from and not what it computes.
_PROVENANCE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint resolved to local folders; small and JSON-serializable, for actors.

    Attributes
    ----------
    path : folder with config, tokenizer and safetensors (of the base where there is an adapter).
    adapter : folder of a PEFT adapter, or None.
    fingerprint : hash of the files' content, the quantization and the precision.
    """

    path: str
    adapter: str | None
    quantization: str
    dtype: str
    max_tokens: int | None
    trust_remote_code: bool
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def label(self) -> str:
        """What plans and reports call it."""
        return self.adapter or self.path


def resolve_checkpoint(spec: ModelSpec, where: str, *, on_gpu: bool) -> Checkpoint:
    """Find a checkpoint's files, refuse what may not be loaded, and take its fingerprint.

    Parameters
    ----------
    spec : the model as the audit file has it.
    where : the key it stands under, for messages.
    on_gpu : whether its pool has GPUs; decides what dtype ``auto`` is.

    Raises
    ------
    InputError
        If a folder is missing, has no config, or has weights in pickle files alone.
    """
    path = locate(spec.model, spec.revision, where)
    check_model_folder(path, where)
    adapter = None
    if spec.adapter is not None:
        adapter = locate(spec.adapter, None, f"{where}.adapter")
        check_adapter_folder(adapter, f"{where}.adapter")
    dtype = spec.dtype if spec.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    checkpoint = Checkpoint(
        path=str(path),
        adapter=None if adapter is None else str(adapter),
        quantization=spec.quantization,
        dtype=dtype,
        max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code,
    )
    return replace(checkpoint, fingerprint=fingerprint(checkpoint))


def locate(name: str, revision: str | None, where: str) -> Path:
    """Return the local folder of a checkpoint: a path, an fsspec URL, or a hub name."""
    if "://" in name:
        fs, path = fsspec.core.url_to_fs(name)
        if not fs.exists(path):
            raise InputError(f"{where}: no such folder: {name}")
        return download_folder(fs, path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise InputError(f"{where}: {name} is a file; give the folder of the checkpoint")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(f"{where}: no such folder: {name}")
    return _from_hub(name, revision, where)


def _from_hub(name: str, revision: str | None, where: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=ALLOWED_FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{where}: {name!r} is no folder here and could not be had from the model hub "
            f"({type(error).__name__}); give the path of a local folder, or check the name, the "
            "network and HF_TOKEN"
        ) from None


def check_model_folder(path: Path, where: str) -> None:
    """Refuse a folder without a config or without safetensors weights."""
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        hint = (
            "; this is a PEFT adapter: name it as `adapter` and its base as `model`"
            if (path / "adapter_config.json").is_file()
            else ""
        )
        raise InputError(f"{where}: {path} has no config.json (found: {found}){hint}")
    try:
        json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{where}: {path / 'config.json'} is not valid JSON: {error}") from None
    _check_weights(path, where, "*.safetensors")
    if not any(any(path.glob(names)) for names in ("tokenizer*", "vocab*", "*.model")):
        raise InputError(
            f"{where}: {path} has no tokenizer; save the base's beside the weights with "
            "tokenizer.save_pretrained(folder)"
        )


def check_adapter_folder(path: Path, where: str) -> None:
    """Refuse a folder that is no PEFT adapter in safetensors."""
    if not (path / "adapter_config.json").is_file():
        raise InputError(f"{where}: {path} has no adapter_config.json, so it is no PEFT adapter")
    _check_weights(path, where, "adapter_model.safetensors")


def _check_weights(path: Path, where: str, weights: str) -> None:
    if any(path.glob(weights)):
        return
    pickles = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickles:
        raise InputError(
            f"{where}: {path} has its weights in {', '.join(pickles[:3])} only, and raymia "
            "unpickles no file it was given (a pickle can run any code). Convert it where you "
            "trust it: load it with transformers and save_pretrained(folder), which writes "
            "safetensors"
        )
    raise InputError(f"{where}: {path} has no {weights} weights")


def fingerprint(checkpoint: Checkpoint) -> str:
    """Hash everything in a checkpoint that can change an answer.

    Two copies of the same files have the same fingerprint wherever they lie; a changed weight,
    tokenizer file, adapter, quantization, precision or length limit gives another.
    """
    folders = {"model": Path(checkpoint.path)}
    if checkpoint.adapter is not None:
        folders["adapter"] = Path(checkpoint.adapter)
    files = {f"{role}/{p.name}": p for role, folder in folders.items() for p in _relevant(folder)}
    with ThreadPoolExecutor(4) as pool:
        contents = dict(zip(files, pool.map(_content_hash, files.values()), strict=True))
    return digest(
        {
            "files": contents,
            "quantization": checkpoint.quantization,
            "dtype": checkpoint.dtype,
            "max_tokens": checkpoint.max_tokens,
            "trust_remote_code": checkpoint.trust_remote_code,
        }
    )


def _relevant(folder: Path) -> list[Path]:
    ignored = {"training_args.json", "trainer_state.json", "facts.json"}
    suffixes = {".safetensors", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py"}
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name not in ignored)


def _content_hash(path: Path) -> str:
    if path.name != "config.json":
        return digest_file(path)
    config = json.loads(path.read_text(encoding="utf-8"))
    return digest({key: value for key, value in config.items() if key not in _PROVENANCE})
