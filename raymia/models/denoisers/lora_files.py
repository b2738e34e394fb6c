"""Low-rank adapters of diffusion models in files: where they lie and what they hold; nothing is
loaded but the numbers by which they are scaled.

The same weights are written in several ways: by diffusers (with PEFT's config in the header),
by PEFT itself (with a config beside them) and by kohya's scripts (names with underscores alone, and
the scale as a tensor). Here they become one list of changed modules, each by the name it has in the
file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from raymia.models.source import ADAPTER_CONFIG, PICKLES, Reads, locate, names_in, read_json
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError
from raymia.util.listing import FEW, listed
from raymia.util.stated import FLAG, NUMBER, OBJECT, shown, stated, stated_if
from raymia.util.strict_json import parse_json_of

BY_DIFFUSERS, BY_PEFT = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
ON_THE_WAY = "learned_embeds-steps-*.safetensors"
"""What a textual inversion leaves beside the words that it learned in the end."""
WORDS = "learned_embeds.safetensors"
IN_HEADER = "lora_adapter_metadata"
"""Where in a file's header diffusers writes PEFT's config."""

_TENSOR = re.compile(
    r"(?P<module>.+?)(?:"
    r"(?:\.lora_A|\.lora\.down|_lora\.down|\.lora_linear_layer\.down|\.lora_down)\.(?P<down>weight)"
    r"|(?:\.lora_B|\.lora\.up|_lora\.up|\.lora_linear_layer\.up|\.lora_up)\.(?P<up>weight)"
    r"|(?:\.lora_B|\.lora\.up)\.(?P<bias>bias)"
    r"|\.(?P<magnitude>lora_magnitude_vector(?:\.weight)?|dora_scale)"
    r"|\.(?P<alpha>alpha))"
)
"""A tensor's module and what it is to that."""
KOHYA = {
    "lora_unet_": "", "lora_transformer_": "", "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te3_": "text_encoder_3",
}  # fmt: skip
"""Parts of a pipeline by what kohya's names begin with; "" is the denoising network."""
DOTTED = {
    "unet.": "", "transformer.": "", "base_model.model.": "", "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2", "text_encoder_3.": "text_encoder_3",
    "diffusion_model.": "", "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_3",
}  # fmt: skip
"""The same of names with dots, the last of them ComfyUI's; a T5 is the third encoder, of FLUX.1 the
second."""
OF_PEFT = "base_model.model."
"""What names of tensors begin with in files that PEFT itself writes."""
LEAVES_THE_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that change no weight of the base."""


@dataclass(frozen=True)
class LowRank:
    """What a file holds for one module, whose weight it changes by scale * up @ down.

    Attributes
    ----------
    part : of the pipeline: "" for the denoising network, or "text_encoder" and the like.
    module : its name as the file has it, without what stands for the part.
    tensors : names of its tensors in the file by what they are: "down", "up", "bias", "magnitude".
    shapes : of these.
    scale : of the product.
    """

    part: str
    module: str
    tensors: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    scale: float

    @property
    def rank(self) -> int:
        return self.shapes["down"][0]


def locate_adapter(name: str, where: str) -> Path:
    """The file of an adapter that an audit file names by itself or by its folder.

    Raises
    ------
    InputError
        If there is none in safetensors, or several.
    """
    if name.endswith(".safetensors") and "://" not in name:
        file = Path(name).expanduser()
        if not file.is_file():
            raise InputError(f"{where}: no such file: {name}")
        return file.resolve()
    if any(Path(name).match(pattern) for pattern in PICKLES) and Path(name).expanduser().is_file():
        raise InputError(
            f"{where}: {name} is a pickle, and raymia unpickles no file it was given; save its "
            "tensors as safetensors where you trust it"
        )
    folder = locate(name, None, Reads("own"), where=where)
    for known in (BY_DIFFUSERS, BY_PEFT):
        if (folder / known).is_file():
            return folder / known
    found = sorted(folder.glob("*.safetensors"))
    last = [file for file in found if not file.match(ON_THE_WAY)]
    if len(last) == 1 and (len(found) == 1 or last[0].name == WORDS):
        return last[0]
    if found:
        raise InputError(
            f"{where}: {folder} holds {len(found)} files of weights "
            f"({listed([file.name for file in found], FEW)}) and none is called {BY_DIFFUSERS}; "
            "name the file itself"
        )
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{where}: {folder} has its adapter in {listed(pickles, FEW)} only, and raymia "
            "unpickles no file it was given; save it as safetensors where you trust it, as "
            "save_lora_weights does"
        )
    raise InputError(
        f"{where}: {folder} holds no adapter in safetensors (found: {names_in(folder)}); an "
        f"adapter of a diffusion model is {BY_DIFFUSERS}, {BY_PEFT} with {ADAPTER_CONFIG}, or a "
        "file of kohya's scripts, named by itself"
    )


def read_low_rank(file: Path, where: str) -> tuple[LowRank, ...]:
    """The modules that an adapter changes, sorted by name.

    Raises
    ------
    InputError
        Naming tensors that are none of a low-rank adapter's, or lack their other half, or what its
        config says that cannot be done to a base that is shared.
    """
    header = read_header(file, where)
    found: dict[str, dict[str, str]] = {}
    unknown = []
    for name in header:
        match = _TENSOR.fullmatch(name)
        if match is None:
            unknown.append(name)
            continue
        role = next(role for role, text in match.groupdict().items() if text and role != "module")
        found.setdefault(match["module"], {})[role] = name
    place = f"{where}: {file}"
    if not any("." in name for name in header):
        raise InputError(
            f"{place}: it holds {len(header):,} tensors that are no module's "
            f"({listed(sorted(unknown), FEW)}); if they are words of textual inversion, save each "
            "in a file of its own, as diffusers does, and name these"
        )
    if unknown:
        raise InputError(
            f"{place}: {len(unknown):,} of its tensors are none of a LoRA's or DoRA's "
            f"({listed(sorted(unknown), FEW)}); raymia reads those that diffusers, PEFT and "
            "kohya's scripts write. Fuse an adapter of another method into its base, and audit that"
        )
    halves = sorted(
        f"{next(iter(tensors.values()))} has no {listed(lacking)} beside it"
        for tensors in found.values()
        if (lacking := [role for role in ("down", "up") if role not in tensors])
    )
    if halves:
        raise InputError(
            f"{place}: {len(halves):,} of its modules lack one of the two matrices "
            f"({listed(halves, FEW)}); copy the file again"
        )
    configs = _peft_configs(file, where)
    read = tuple(
        _low_rank(file, module, found[module], header, configs, place) for module in sorted(found)
    )
    for part in {one.part for one in read}:
        plain = [one for one in read if one.part == part and "magnitude" not in one.tensors]
        if plain and len(plain) < sum(one.part == part for one in read):
            raise InputError(
                f"{place}: {len(plain):,} of its modules are a LoRA's and others a DoRA's "
                f"({listed([one.tensors['down'] for one in plain], FEW)} have no magnitude); fuse "
                "the adapter into its base, and audit that"
            )
    return read


def _low_rank(
    file: Path,
    module: str,
    tensors: dict[str, str],
    header: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    place: str,
) -> LowRank:
    starts = KOHYA if module.startswith("lora_") else DOTTED
    start = next((start for start in starts if module.startswith(start)), "")
    part, name = starts.get(start, ""), module.removeprefix(start)
    shapes = {role: header[tensor].shape for role, tensor in tensors.items()}
    rank = shapes["down"][0] if shapes["down"] else 0
    if rank < 1 or len(shapes["up"]) < 2 or shapes["up"][1] != rank:
        raise InputError(
            f"{place}: {module}: matrices of {list(shapes['down'])} and {list(shapes['up'])} have "
            "no rank in common; copy the file again"
        )
    alpha = tensors.pop("alpha", None)
    if alpha is not None:
        if math.prod(shapes.pop("alpha")) != 1:
            raise InputError(f"{place}: {alpha} should be one number; copy the file again")
        scale = _number(file, alpha) / rank
    else:
        scale = _scale(configs.get(part, {}), name, rank, place)
    if not math.isfinite(scale):
        raise InputError(f"{place}: {module}: its scale is {scale}; copy the file again")
    return LowRank(part, name, tensors, shapes, scale)


def _number(file: Path, tensor: str) -> float:
    with safe_open(file, framework="pt") as content:
        return float(content.get_tensor(tensor).flatten()[0])


def config_beside(file: Path, where: str) -> Path | None:
    """PEFT's config that lies beside a file that PEFT has written, whatever it is called now; None
    for a file of others, or one that has its config in its header."""
    is_of_peft = any(name.startswith(OF_PEFT) for name in read_header(file, where))
    if file.name != BY_PEFT and (not is_of_peft or _in_header(file) is not None):
        return None
    return file.parent / ADAPTER_CONFIG


def _in_header(file: Path) -> str | None:
    with safe_open(file, framework="pt") as content:
        written: str | None = (content.metadata() or {}).get(IN_HEADER)
    return written


def _peft_configs(file: Path, where: str) -> dict[str, dict[str, Any]]:
    """PEFT's config of each part, where the file or the config beside it says so."""
    beside = config_beside(file, where)
    if beside is not None:
        if not beside.is_file():
            raise InputError(
                f"{where}: {file}: PEFT has written it, and its scale stands in no "
                f"{ADAPTER_CONFIG} beside it; copy that of the training there"
            )
        configs = {"": read_json(beside, where)}
    else:
        written = _in_header(file)
        named = f"{where}: {file}: {IN_HEADER} in its header"
        entries = parse_json_of(named, written) if written else {}
        if not isinstance(entries, dict):
            raise InputError(f"{named} should hold an object, but holds {shown(entries)}")
        configs = {}
        for key, value in entries.items():
            start = next((start for start in DOTTED if key.startswith(start)), "")
            configs.setdefault(DOTTED.get(start, ""), {})[key.removeprefix(start)] = value
    for settings in configs.values():
        _refuse_other_methods(settings, f"{where}: {file}")
    return configs


def _refuse_other_methods(settings: Mapping[str, Any], place: str) -> None:
    method, start = settings.get("peft_type", "LORA"), settings.get("init_lora_weights")
    if method != "LORA":
        raise InputError(
            f"{place}: it is a {method} adapter, and raymia reads LoRA and DoRA of diffusion "
            "models; fuse it into its base, and audit that"
        )
    if start not in LEAVES_THE_BASE or settings.get("bias", "none") != "none":
        setting = "bias" if start in LEAVES_THE_BASE else "init_lora_weights"
        raise InputError(
            f"{place}: it changes the weights of its base beside the adapter ({setting}: "
            f"{settings[setting]!r}); fuse it into its base, and audit that"
        )


def _scale(config: Mapping[str, Any], module: str, rank: int, place: str) -> float:
    """The scale that PEFT gives a module; 1 where nobody says."""
    if "lora_alpha" not in config:
        return 1.0
    alpha = float(stated(config, "lora_alpha", NUMBER, place))
    own: Mapping[str, Any] = stated_if(config, "alpha_pattern", OBJECT, place) or {}
    for pattern in own:
        try:
            is_meant = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error as error:
            raise InputError(f"{place}: alpha_pattern: {pattern!r}: {error}") from None
        if is_meant:
            alpha = float(stated(own, pattern, NUMBER, f"{place}: alpha_pattern"))
            break
    return alpha / (math.sqrt(rank) if stated_if(config, "use_rslora", FLAG, place) else rank)
