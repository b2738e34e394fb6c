"""What an autoencoder of raymia's own is made of, as its config.json says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from raymia.models.autoencoders.resolver import OWN_AUTOENCODER
from raymia.models.source import read_json
from raymia.spec.base import Strict
from raymia.util.errors import InputError

CONFIG_FILE = "config.json"
Objective = Literal["vae", "beta_vae", "wae_mmd", "rhvae"]
Positive = Annotated[int, Field(ge=1)]


class MmdConfig(Strict):
    """The penalty of a WAE-MMD (Tolstikhin et al., arXiv 1711.01558, algorithm 2)."""

    kernel: Literal["imq", "rbf"] = Field(
        default="imq",
        description="inverse multiquadratic, summed over seven scales from 0.1 to 10, or Gaussian",
    )
    bandwidth: float = Field(default=1.0, gt=0, description="in standard deviations of the prior")
    weight: float = Field(
        default=3.0,
        gt=0,
        description="of the squared discrepancy; pythae 0.1.2 weighs the same by its `reg_weight`, "
        "0.03 by default",
    )


class RhvaeConfig(Strict):
    """The flow and the metric of an RHVAE (Chadebec et al., arXiv 2010.11518)."""

    n_lf: int = Field(default=3, ge=0, description="leapfrog steps; none leaves a plain VAE")
    eps_lf: float = Field(default=1e-3, gt=0, description="length of a leapfrog step")
    beta_zero_sqrt: float = Field(
        default=0.3, gt=0, le=1, description="square root of the inverse temperature at the start"
    )
    temperature: float = Field(
        default=1.5, gt=0, description="how far a centroid's matrix reaches in latent space (T)"
    )
    regularization: float = Field(
        default=0.01, gt=0, description="of the inverse metric far from every centroid (lambda)"
    )


class AutoencoderConfig(Strict):
    """An autoencoder: networks, objective, and the objective's parameters.

    The networks have one stage per entry of ``channels``: a convolution of kernel 4 and stride 2,
    normalization, ReLU. The decoder mirrors the encoder and ends in a sigmoid.
    """

    objective: Objective = Field(description="what the autoencoder is trained on")
    image_shape: tuple[Positive, Positive, Positive] = Field(
        description="channels, height and width in pixels"
    )
    latent: int = Field(default=64, ge=1, description="numbers in a latent vector")
    channels: tuple[Positive, ...] = Field(
        default=(32, 64, 128), min_length=1, description="of each stage of the encoder"
    )
    normalization: Literal["batch", "group", "none"] = Field(
        default="batch", description="after each convolution but the decoder's last"
    )
    beta: float = Field(default=1.0, gt=0, description="weight of the divergence of a beta-VAE")
    mmd: MmdConfig = Field(default=MmdConfig(), description="for wae_mmd")
    rhvae: RhvaeConfig = Field(default=RhvaeConfig(), description="for rhvae")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.beta != 1 and self.objective != "beta_vae":
            raise ValueError(f"beta is of beta_vae, and the objective is {self.objective}")
        _, height, width = self.image_shape
        if min(height, width) < 2 ** len(self.channels):
            raise ValueError(
                f"{len(self.channels)} stages halve an image of {height} x {width} pixels to "
                "nothing; give fewer channels"
            )
        return self

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width before the first stage, and after each."""
        _, height, width = self.image_shape
        return [(height >> n, width >> n) for n in range(len(self.channels) + 1)]

    def to_json(self) -> str:
        """The content of config.json."""
        content = {"_class_name": OWN_AUTOENCODER, **self.model_dump(mode="json")}
        return json.dumps(content, indent=2) + "\n"


def read_config(folder: Path) -> AutoencoderConfig:
    """Read the config of an autoencoder of raymia's own.

    Raises
    ------
    InputError
        If it is missing, of another class of models, or has a value that cannot be.
    """
    content: dict[str, Any] = dict(read_json(folder / CONFIG_FILE, "autoencoder"))
    name = content.pop("_class_name", None)
    if name != OWN_AUTOENCODER:
        raise InputError(
            f"{folder / CONFIG_FILE}: _class_name should be {OWN_AUTOENCODER!r}, but got {name!r}"
        )
    try:
        return AutoencoderConfig.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{folder / CONFIG_FILE}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors()
        ) from None
