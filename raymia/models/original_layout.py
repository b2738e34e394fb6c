"""Pipelines of diffusers in one file of their authors' layout: which tensors are whose, and what
diffusers calls them. Configs, tokenizers and the schedule are those of a local folder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymia.models.fit import Described, build_hollow, hollow, in_silence
from raymia.models.single_file import refuse_adapters
from raymia.storage.safetensors import TensorHeader, read_header
from raymia.util.errors import InputError, first_line
from raymia.util.listing import FEW, listed
from raymia.util.once import Once

Tensors = Mapping[str, Any]

IN_LDM = "model.diffusion_model."
NETWORK = (
    IN_LDM, "double_blocks.", "single_blocks.", "img_in.", "txt_in.", "time_in.", "vector_in.",
    "guidance_in.", "final_layer.", "joint_blocks.", "x_embedder.", "context_embedder.",
    "t_embedder.", "y_embedder.", "pos_embed",
)  # fmt: skip
OF_CLIP = "text_encoders.clip_l."
HOLDS = {
    "unet": NETWORK,
    "transformer": NETWORK,
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", OF_CLIP),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
}
"""How the names of a part's tensors begin."""
T5, OF_T5 = ("T5EncoderModel",), "text_encoders.t5xxl."
PROJECTION = "text_projection.weight"
"""Of a CLIP; the smaller one was trained without, so that files need not have it."""
FLOATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""safetensors' names of torch's types of numbers that are what they stand for."""
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
NOT_ASKED = re.compile(
    r"^(model_ema\.|denoiser\.|(alphas|betas|sqrt|log_one|posterior|lvlb|logvar|scale_factor)"
    r"|global_step|embedding_manager\.)|(^|\.)(logit_scale|position_ids|text_projection)$"
)
"""Names of tensors that a training keeps and no pipeline reads."""
VELOCITY, ZERO_TERMINAL_SNR = "v_pred", "ztsnr"
"""Tensors without a number, by which a file says what its network predicts on which schedule."""
OF_EDM = ("edm_vpred.", "edm_mean", "edm_std")
OF_ITS_OWN = "give the whole file, and as `config` a folder of the pipeline that it is of"


def parts_in(file: Path, kinds: Sequence[tuple[str, str]], where: str) -> frozenset[str]:
    """The parts of a pipeline whose weights a file holds.

    Parameters
    ----------
    kinds : the parts that the pipeline has, each with its class.

    Raises
    ------
    InputError
        If it is an adapter's, holds none of the network, or tensors that belong to no part.
    """
    names = read_header(file, where)
    refuse_adapters(names, f"{where}: {file} is one file")
    starts = {part: _starts(part, kind) for part, kind in kinds}
    found = {part for part, own in starts.items() if any(n.startswith(own) for n in names)}
    if not found & {"unet", "transformer"}:
        raise InputError(
            f"{where}: {file} holds no denoising network in its authors' layout (it begins with "
            f"{listed([*names], FEW)}); give the file of a whole pipeline or of its network"
        )
    known = tuple(start for own in starts.values() for start in own)
    if edm := [name for name in names if name.startswith(OF_EDM)]:
        raise InputError(
            f"{where}: {file} is an EDM, as {listed(edm, FEW)} in it says, and raymia scores "
            "models of the DDPM family and of flow matching"
        )
    own = (*names.keys() - marks_in(file, where),)
    lost = sorted(n for n in own if not n.startswith(known) and not NOT_ASKED.search(n))
    if lost:
        raise InputError(
            f"{where}: {file} holds {len(lost):,} tensors that belong to none of "
            f"{listed([part for part, _ in kinds])} ({listed(lost, FEW)}), and would be scored "
            f"without them; {OF_ITS_OWN}"
        )
    return frozenset(found)


def marks_in(file: Path, where: str) -> frozenset[str]:
    """By which of these tensors a file says what its network predicts, or on which schedule."""
    names = read_header(file, where)
    marks = (VELOCITY, ZERO_TERMINAL_SNR)
    return frozenset(name for name in marks if name in names and 0 in names[name].shape)


def headers_of(
    file: Path, part: str, kind: str, config: Any, where: str, once: Once
) -> dict[str, TensorHeader]:
    """The tensors of a part by diffusers' or transformers' names; no numbers are read.

    Parameters
    ----------
    part : its folder in the pipeline's.
    kind : its class.
    config : of transformers; of diffusers its content.

    Raises
    ------
    InputError
        If diffusers cannot tell them, or knows no place for some of them.
    """
    headers = once(read_header, file, where=where)
    own = {n: h for n, h in headers.items() if n.startswith(_starts(part, kind))}
    with in_silence():
        try:
            found = renamed(hollow(own), kind, config)
        except Exception as error:  # of any kind, by what is missing
            raise InputError(
                f"{where}: {file}: diffusers does not read the {kind} of its {part} out of it "
                f"({type(error).__name__}: {first_line(error)}); {OF_ITS_OWN}, or save the "
                "pipeline as a folder, and name that as `model`"
            ) from error
    given = sum(math.prod(h.shape) for n, h in own.items() if not NOT_ASKED.search(n))
    taken = sum(tensor.numel() for tensor in found.values())
    if isinstance(config, Mapping) and given != taken:
        raise InputError(
            f"{where}: {file}: its {part} has {given:,} numbers, of which a {kind} takes "
            f"{taken:,}; {OF_ITS_OWN}"
        )
    return {name: _header(tensor) for name, tensor in found.items()}


def _header(tensor: Any) -> TensorHeader:
    return TensorHeader(FLOATS.get(str(tensor.dtype)[len("torch.") :], "U8"), tuple(tensor.shape))


def renamed(tensors: Tensors, kind: str, config: Any) -> dict[str, Any]:
    """A part's tensors by diffusers' or transformers' names, cut and joined as these are."""
    if not isinstance(config, Mapping):
        return _of_text_encoder(tensors, kind, config)
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
    return convert(config=dict(config), checkpoint=dict(tensors))  # type: ignore[no-any-return]


def tensors_of(file: Path, part: str, kind: str) -> dict[str, Any]:
    """A part's tensors out of a file, by the names that they have there."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        own = [name for name in content.keys() if name.startswith(_starts(part, kind))]  # noqa: SIM118
        return {name: content.get_tensor(name) for name in own}


def _starts(part: str, kind: str) -> tuple[str, ...]:
    return (OF_T5,) if kind in T5 else HOLDS.get(part, ())


def _of_text_encoder(tensors: Tensors, kind: str, config: Any) -> dict[str, Any]:
    import torch
    from diffusers.loaders import single_file_utils as by_diffusers

    if kind in T5:
        return _without(f"{OF_T5}transformer.", tensors)
    names = frozenset((name, TensorHeader("", ())) for name in tensors)
    model = build_hollow(Described(kind, "", names, config))
    found: dict[str, Any]
    opened = next((s for s in OPEN_CLIP if any(n.startswith(s) for n in tensors)), None)
    if opened is not None:
        found = by_diffusers.convert_open_clip_checkpoint(model, dict(tensors), prefix=opened)
    else:
        known = (*HOLDS["text_encoder"], *HOLDS["text_encoder_2"])
        own = next(start for start in known if any(name.startswith(start) for name in tensors))
        found = _without(f"{own}transformer.", tensors)
        if own == OF_CLIP:
            found.setdefault(PROJECTION, torch.eye(config.hidden_size))
    state = model.state_dict()
    if PROJECTION not in state:  # as in FLUX.1, which does not ask for it
        found.pop(PROJECTION, None)
    if not any(name.startswith("text_model.") for name in state):
        found = {name.removeprefix("text_model."): tensor for name, tensor in found.items()}
    return found


def _without(start: str, tensors: Tensors) -> dict[str, Any]:
    """Tensors without what their names begin with, and without those that no pipeline reads."""
    asked = {name: tensor for name, tensor in tensors.items() if not NOT_ASKED.search(name)}
    return {name.removeprefix(start): tensor for name, tensor in asked.items()}
