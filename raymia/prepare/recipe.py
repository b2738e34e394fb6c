"""What a reference is made from, as plans and executors see it, whatever the records are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from raymia.evidence.store import EvidenceStore
from raymia.models.checkpoint import AnyCheckpoint
from raymia.prepare.parts import Share
from raymia.spec import PoolSpec

if TYPE_CHECKING:
    from raymia.prepare.trainer import Progress

Report: TypeAlias = "Callable[[str], Progress]"
"""From what is being done, as "write texts", to what is told how far it is."""


class Recipe(Protocol):
    """Everything that a reference is made from in which the target has a part."""

    @property
    def target(self) -> AnyCheckpoint:
        """The model that generates what the reference is trained on."""

    @property
    def base(self) -> AnyCheckpoint | None:
        """The model that is trained further; None for a fresh one."""

    @property
    def key(self) -> str:
        """The key of the finished reference in the store."""

    @property
    def material_key(self) -> str:
        """Of what the target generated, which is in the store before the reference is."""

    @property
    def items(self) -> int:
        """Texts, images or the like that the target generates."""

    @property
    def steps(self) -> int:
        """Optimizer steps that the reference is trained for."""

    def rate_parts(self) -> tuple[list[Any], list[Any]]:
        """What the time for one item, and for one step, depends on beside target and machine."""

    def describe(self, target: str) -> str:
        """What will be done, in words; ``target`` is the target's name."""

    def make(self, store: EvidenceStore, pool: PoolSpec, report: Report) -> None:
        """Make the reference and commit it to the store; loads models on this machine."""

    def finished(self, folder: Path | None) -> AnyCheckpoint:
        """The checkpoint of the reference that was made in a folder; without a folder, one under
        whose fingerprint nothing is stored."""


@runtime_checkable
class Shareable(Recipe, Protocol):
    """A recipe of which several workers can write the material at the same time."""

    @property
    def shares(self) -> int:
        """How many workers can write at the same time."""

    @property
    def rounds(self) -> int:
        """How often workers write, each time from what all have written before."""

    @property
    def part_keys(self) -> list[str]:
        """Of what is in the store while the material is not whole."""

    def write_share(
        self, share: Share, store: EvidenceStore, pool: PoolSpec, report: Report
    ) -> None:
        """Write a share of the material into the store; loads the target on this machine.

        Raises
        ------
        PartsMissing
            If the shares of others are not there, without which the material is not whole.
        """
