"""Where a checkpoint's files are, whether they may be loaded, and what they hash to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from raymia.spec import LongTexts, ModelSpec
from raymia.storage.files import ORIGINS, download_folder
from raymia.storage.remote import filesystem
from raymia.storage.safetensors import check_whole
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.once import Once
from raymia.util.optional import require

ALLOWED_FILES = [
    "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.tiktoken", "*.py",
]  # fmt: skip
HASHED_BESIDE = 2**20
"""Bytes of a file from which it is worth a thread to hash it beside others."""

HUB = "hub:"
"""Stands before the name and revision of what came from the model hub."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
# Keys of config.json that record where a model came from and not what it computes.
PROVENANCE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint resolved to local folders; small and JSON-serializable, for actors.

    Attributes
    ----------
    path : folder with config, tokenizer and safetensors (of the base where there is an adapter).
    adapter : folder of a PEFT adapter, or None.
    long_texts, stride : as the audit file has them.
    gguf_file : name of a GGUF file in the folder, which then stands for everything else in it.
    fingerprint : hash of the files' content, the quantization and the precision.
    tokenizer : hash of the files that say how texts become tokens, and of how many; empty where it
        was not taken.
    """

    path: str
    adapter: str | None
    quantization: str
    dtype: str
    max_tokens: int | None
    trust_remote_code: bool
    long_texts: LongTexts = "cut"
    stride: int | None = None
    gguf_file: str | None = None
    fingerprint: str = ""
    tokenizer: str = ""
    family: ClassVar[str] = "causal"

    @property
    def gguf(self) -> dict[str, str]:
        """What transformers is told so that it reads the GGUF file."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def label(self) -> str:
        """What plans and reports call it."""
        return self.adapter or self.path


def resolve_checkpoint(
    spec: ModelSpec,
    where: str,
    *,
    on_gpu: bool,
    once: Once | None = None,
    encoder_decoder: bool = False,
) -> Checkpoint:
    """Find a checkpoint's files, refuse what may not be loaded, and take its fingerprint.

    Parameters
    ----------
    spec : the model as the audit file has it.
    where : the key it stands under, for messages.
    on_gpu : whether its pool has GPUs; decides what dtype ``auto`` is.
    once : of all checkpoints that are resolved together.
    encoder_decoder : whether the model should be one, as a T5 is.

    Raises
    ------
    InputError
        If a folder is missing, has no config, is of another kind of model, or has weights in pickle
        files alone, or damaged.
    """
    once = once or Once()
    path = once(locate, spec.model, spec.revision, where=where)
    if spec.gguf_file is None:
        once(check_model_folder, path, encoder_decoder, where=where)
    else:
        once(check_gguf, path, spec.gguf_file, where=where)
    if spec.quantization != "none":
        once(require, "bitsandbytes", "quantized models", where=where)
    adapter = None
    if spec.adapter is not None:
        key = f"{where.removesuffix('.model')}.adapter"
        adapter = once(locate, spec.adapter, None, where=key)
        once(check_adapter_folder, adapter, where=key)
        once(require, "peft", "adapters", where=key)
    dtype = spec.dtype if spec.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    checkpoint = Checkpoint(
        path=str(path),
        adapter=None if adapter is None else str(adapter),
        quantization=spec.quantization,
        dtype=dtype,
        max_tokens=spec.max_tokens,
        trust_remote_code=spec.trust_remote_code,
        long_texts=spec.long_texts,
        stride=spec.stride,
        gguf_file=spec.gguf_file,
    )
    return replace(
        checkpoint,
        fingerprint=fingerprint(checkpoint, once),
        tokenizer=_tokenizer_hash(checkpoint, once),
    )


def locate(name: str, revision: str | None, where: str) -> Path:
    """Return the local folder of a checkpoint: a path, an fsspec URL, or a hub name."""
    if "://" in name:
        fs, path = filesystem(name)
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
        path = Path(snapshot_download(name, revision=revision, allow_patterns=ALLOWED_FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{where}: {name!r} is no folder here and could not be had from the model hub "
            f"({type(error).__name__}); give the path of a local folder, or check the name, the "
            "network and HF_TOKEN"
        ) from None
    ORIGINS[str(path)] = f"{HUB}{name}@{path.name}"  # a snapshot is named by its commit
    return path


def origins_of(checkpoints: Iterable[Any]) -> dict[str, str]:
    """Where the folders of checkpoints came from, as far as they were downloaded, by folder."""
    paths = [getattr(c, key, None) for c in checkpoints for key in ("path", "adapter")]
    return {path: ORIGINS[path] for path in paths if path in ORIGINS}


def bring(origins: Mapping[str, str]) -> None:
    """Download the folders that the driver has downloaded, where this machine lacks them."""
    for path, origin in origins.items():
        if Path(path).exists():
            continue
        if origin.startswith(HUB):
            name, _, revision = origin.removeprefix(HUB).rpartition("@")
            _from_hub(name, revision, name)
        else:
            download_folder(*filesystem(origin))


def read_json(path: Path, where: str) -> dict[str, Any]:
    """Read a config file.

    Raises
    ------
    InputError
        If it is missing, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{where}: {path} is missing") from None
    except ValueError as error:
        raise InputError(f"{where}: {path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: {path} should hold an object, but it holds a {type(content).__name__}"
        )
    return content


def check_model_folder(path: Path, encoder_decoder: bool, where: str) -> None:
    """Refuse a folder without a config or without whole safetensors weights, or of another kind."""
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        hint = (
            "; this is a PEFT adapter: name it as `adapter` and its base as `model`"
            if (path / "adapter_config.json").is_file()
            else ""
        )
        raise InputError(f"{where}: {path} has no config.json (found: {found}){hint}")
    config = read_json(path / "config.json", where)
    if bool(config.get("is_encoder_decoder")) != encoder_decoder:
        wanted = "an encoder-decoder such as T5" if encoder_decoder else "a causal language model"
        raise InputError(f"{where}: {path} is a {config.get('model_type')} model, not {wanted}")
    _check_weights(path, where, "*.safetensors")
    if not any(any(path.glob(names)) for names in ("tokenizer*", "vocab*", "*.model")):
        raise InputError(
            f"{where}: {path} has no tokenizer; save the base's beside the weights with "
            "tokenizer.save_pretrained(folder)"
        )


def check_gguf(path: Path, name: str, where: str) -> None:
    """Refuse a GGUF file that is not there, or that this installation cannot read."""
    if not (path / name).is_file():
        found = ", ".join(sorted(p.name for p in path.glob("*.gguf"))[:8]) or "no GGUF file"
        raise InputError(f"{where}: no file {name} in {path} (found: {found})")
    require("gguf", "GGUF files", where)


def check_adapter_folder(path: Path, where: str) -> None:
    """Refuse a folder that is no PEFT adapter in safetensors."""
    if not (path / "adapter_config.json").is_file():
        raise InputError(f"{where}: {path} has no adapter_config.json, so it is no PEFT adapter")
    read_json(path / "adapter_config.json", where)
    _check_weights(path, where, "adapter_model.safetensors")


def _check_weights(path: Path, where: str, weights: str) -> None:
    found = sorted(path.glob(weights))
    for file in found:
        check_whole(file, where)
    if found:
        return
    pickles = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickles:
        raise InputError(
            f"{where}: {path} has its weights in {', '.join(pickles[:3])} only, and raymia "
            "unpickles no file it was given (a pickle can run any code). Convert it where you "
            "trust it: load it with transformers and save_pretrained(folder), which writes "
            "safetensors"
        )
    there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{where}: {path} has no {weights} weights (found: {there}); save the model there with "
        "save_pretrained(folder), or copy the file that is missing"
    )


def fingerprint(checkpoint: Checkpoint, once: Once | None = None) -> str:
    """Hash everything in a checkpoint that can change an answer.

    Two copies of the same files have the same fingerprint wherever they lie; a changed weight,
    tokenizer file, adapter, quantization, precision or length limit gives another.

    Parameters
    ----------
    once : of all checkpoints that are looked at together, so that the base of many adapters is read
        once.
    """
    once = once or Once()
    files = {f"model/{p.name}": p for p in _model_files(checkpoint, once)}
    if checkpoint.adapter is not None:
        files |= {f"adapter/{p.name}": p for p in once(_relevant, Path(checkpoint.adapter))}
    hashes = _content_hashes(files, once)
    # Named only where they are used: evidence from before there were windows keeps its key.
    windows = {} if checkpoint.long_texts == "cut" else {"windows": checkpoint.stride}
    return digest(
        {
            "files": hashes,
            "quantization": checkpoint.quantization,
            "dtype": checkpoint.dtype,
            "max_tokens": checkpoint.max_tokens,
            "trust_remote_code": checkpoint.trust_remote_code,
            **windows,
        }
    )


def _tokenizer_hash(checkpoint: Checkpoint, once: Once) -> str:
    """Hash what a tokenizer and a context length can depend on: all of the model but weights."""
    files = {p.name: p for p in _model_files(checkpoint, once) if p.suffix != ".safetensors"}
    return digest(_content_hashes(files, once))


def _content_hashes(files: Mapping[str, Path], once: Once) -> dict[str, str]:
    """The files' hashes by their names; those of large ones are taken side by side."""
    large = [
        path
        for path in files.values()
        if not once.knows(_content_hash, path) and path.stat().st_size > HASHED_BESIDE
    ]
    if len(large) > 1:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(partial(once, _content_hash), large))
    return {name: once(_content_hash, path) for name, path in files.items()}


def _model_files(checkpoint: Checkpoint, once: Once) -> list[Path]:
    folder = Path(checkpoint.path)
    relevant = once(_relevant, folder)
    if checkpoint.gguf_file is None:
        return relevant
    # transformers still takes some tokenizer settings from files that lie beside the GGUF file.
    return sorted(
        [
            folder / checkpoint.gguf_file,
            *(p for p in relevant if p.suffix != ".safetensors"),
        ]
    )


def _relevant(folder: Path) -> list[Path]:
    ignored = {"training_args.json", "trainer_state.json", "facts.json"}
    suffixes = {".safetensors", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py"}
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name not in ignored)


def _content_hash(path: Path) -> str:
    if path.name != "config.json":
        return digest_file(path)
    config = json.loads(path.read_text(encoding="utf-8"))
    return digest({key: value for key, value in config.items() if key not in PROVENANCE})
