"""A finished run, read from its folder."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import pyarrow.compute as pc

from raymia.metrics.roc import RocCurve, roc_curve
from raymia.metrics.summary import Metrics
from raymia.results import folder as files
from raymia.results.curves import AttackCurves
from raymia.results.flat import metrics_rows
from raymia.results.ranking import rank
from raymia.results.result import RunResult
from raymia.util.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, repr=False)
class StoredRun:
    """What a run wrote, without any model. Scores are read when they are asked for.

    Attributes
    ----------
    folder : where it lies, a local path or an fsspec URL.
    result : the content of ``metrics.json``.
    curves : what is drawn of each attack.
    """

    folder: str
    result: RunResult
    curves: list[AttackCurves]

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Self:
        """Open the folder of a run.

        Raises
        ------
        InputError
            If a file is missing, is of another version of the schema or of another run, or cannot
            be read.
        """
        result, curves = files.load_curves(fspath(folder))
        return cls(fspath(folder), result, curves)

    def __repr__(self) -> str:
        counts = self.result.records
        return (
            f"StoredRun({self.folder!r}: {self.result.name}, {counts.members:,} members, "
            f"{counts.non_members:,} non-members, {counts.candidates:,} candidates, "
            f"{len(self.targets)} targets, {len(self.attacks)} attacks"
            f"{'' if self.result.complete else ', incomplete'})"
        )

    @cached_property
    def scored(self) -> list[tuple[str, str]]:
        return files.scored_attacks(self.folder)

    @property
    def targets(self) -> list[str]:
        """Names of the checkpoints under audit that have scores."""
        return list(dict.fromkeys(target for target, _ in self.scored))

    @property
    def attacks(self) -> list[str]:
        """Labels of the attacks that were run, on whichever target."""
        return list(dict.fromkeys(attack for _, attack in self.scored))

    @overload
    def scores(
        self, target: str | None = ..., attack: str | None = ..., as_: Literal["arrow"] = ...
    ) -> pa.Table: ...
    @overload
    def scores(
        self, target: str | None = ..., attack: str | None = ..., *, as_: Literal["pandas"]
    ) -> pd.DataFrame: ...
    def scores(
        self,
        target: str | None = None,
        attack: str | None = None,
        as_: Literal["arrow", "pandas"] = "arrow",
    ) -> Any:
        """Scores of the records, of one target or attack or of all.

        Returns
        -------
        pyarrow.Table or pandas.DataFrame
            Columns as in `raymia.results.scores.SCORES_SCHEMA`; is_member is null for candidates,
            score where there is none. Higher means more likely a member.

        Raises
        ------
        InputError
            For a target or an attack that the run does not have, with the nearest name.
        """
        if as_ not in ("arrow", "pandas"):
            raise InputError(f"scores come as_='arrow' or 'pandas', but got {as_!r}")
        if target is not None:
            check_known("target", target, self.targets, self.folder)
        if attack is not None:
            check_known("attack", attack, self.attacks, self.folder)
        table = files.load_scores(self.folder, self.result, target, attack)
        return table if as_ == "arrow" else table.to_pandas()

    @overload
    def metrics(
        self, target: str | None = ..., attack: str | None = ..., as_: Literal["objects"] = ...
    ) -> list[Metrics]: ...
    @overload
    def metrics(
        self, target: str | None = ..., attack: str | None = ..., *, as_: Literal["pandas"]
    ) -> pd.DataFrame: ...
    def metrics(
        self,
        target: str | None = None,
        attack: str | None = None,
        as_: Literal["objects", "pandas"] = "objects",
    ) -> Any:
        """What the attacks achieved, of one target or attack or of all; best first per target.

        Returns
        -------
        list of Metrics, or pandas.DataFrame
            One for each attack on each target; the columns are those of
            `raymia.results.flat.metrics_rows`.

        Raises
        ------
        InputError
            As `scores` does.
        """
        if as_ not in ("objects", "pandas"):
            raise InputError(f"metrics come as_='objects' or 'pandas', but got {as_!r}")
        check_known("target", target, self.targets, self.folder)
        check_known("attack", attack, self.attacks, self.folder)
        entries: list[Metrics] = []
        for ranking in rank(self.result.metrics):
            entries += [*ranking.measured, *ranking.not_measured]
        chosen = [
            entry
            for entry in entries
            if target in (None, entry.target) and attack in (None, entry.attack)
        ]
        return chosen if as_ == "objects" else metrics_rows(chosen).to_pandas()

    def roc(self, attack: str, target: str | None = None) -> RocCurve:
        """The ROC curve of an attack; the target may be left out where there is one.

        Raises
        ------
        InputError
            As `scores` does, and where there is no curve: without members or non-members that
            have a score.
        """
        target = self.one_target(target)
        table = self.scores(target, attack)
        known = pc.and_(pc.is_valid(table["is_member"]), pc.is_finite(table["score"]))
        table = table.filter(pc.fill_null(known, False))
        is_member = table["is_member"].to_numpy()
        if is_member.all() or not is_member.any():  # both so where there is none at all
            raise InputError(
                f"{self.folder}: {attack} on {target} has no ROC curve: it takes members and "
                "non-members with a score"
            )
        return roc_curve(table["score"].to_numpy(), is_member)

    def one_target(self, target: str | None) -> str:
        """The target of a name; the only one where it is left out."""
        if target is None and len(self.targets) != 1:
            raise InputError(
                f"{self.folder}: say which target: there are {', '.join(self.targets) or 'none'}"
            )
        check_known("target", target, self.targets, self.folder)
        return self.targets[0] if target is None else target


def check_known(what: str, name: str | None, known: Iterable[str], folder: str) -> None:
    """Refuse a name that a run does not have, with the nearest one."""
    known = list(known)
    if name is None or name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{folder}: no {what} {name!r};{hint} there are: {', '.join(known)}")
