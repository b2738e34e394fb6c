"""What a sweep came to, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from raymia.metrics.summary import Estimate, HeldOutRates, Result
from raymia.results.disguise import Disguise
from raymia.results.folder import SWEEP_FILE
from raymia.results.redaction import unquoted
from raymia.spec import ObjectiveSpec, Value
from raymia.storage.files import Folder
from raymia.sweep.evaluate import Evaluated, Halves, Setting, objective_of
from raymia.util.credentials import hidden_in, hidden_json

TABLE_FILE = "sweep.parquet"
RESULT_FILE = "sweep.json"


class Half(Result):
    """What a setting achieves on one half of the records, with intervals."""

    n_members: int = Field(ge=0, description="members with a score")
    n_non_members: int = Field(ge=0, description="non-members with a score")
    auc: Estimate = Field(description="area under the ROC curve")
    tpr: list[Estimate | None] = Field(description="at each rate; none where not resolvable")


class Winner(Result):
    """The best setting of one attack on one target."""

    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="as the audit file names it")
    label: str = Field(description="statistic@reference, where it has one")
    parameters: dict[str, Value] = Field(description="of the attack; the others are the defaults")
    queries: dict[str, Value] = Field(description="by dotted key, those that matter to it")
    tried: int = Field(ge=1, description="settings that it was the best of")
    calibration: Half = Field(description="on the half it was chosen on: optimistic")
    evaluation: Half | None = Field(description="on the half that judges it")
    held_out: HeldOutRates | None = Field(
        description="for a TPR: threshold chosen on the calibration half, judged on the other"
    )

    def objective(self, half: str, result: SweepResult) -> Estimate | None:
        """The objective on "calibration" or "evaluation"."""
        figures: Half | None = getattr(self, half)
        if figures is None or result.objective.metric == "auc":
            return None if figures is None else figures.auc
        return figures.tpr[result.rates.index(result.objective.fpr)]

    def optimism(self, result: SweepResult) -> float | None:
        """How much better it is where it was chosen than where it is judged."""
        chosen, judged = (self.objective(h, result) for h in ("calibration", "evaluation"))
        return None if chosen is None or judged is None else chosen.value - judged.value


class QueryCount(Result):
    """What one setting of the queries took."""

    values: dict[str, Value] = Field(description="by dotted key")
    answers: int = Field(ge=0, description="answers that its audit rests on")
    asked: int = Field(ge=0, description="questions put to models for it in this run")


class SweepResult(Result):
    """A sweep's summary, as `sweep.json` has it."""

    name: str = Field(description="name of the audit")
    created: str = Field(description="when, UTC")
    code_version: str = Field(description="of raymia")
    search: str = Field(description="grid, random or optuna")
    seed: int = Field(description="of draws and halves")
    objective: ObjectiveSpec = Field(description="what settings were compared by")
    rates: list[float] = Field(description="false-positive rates of the TPR")
    confidence: float = Field(description="nominal level of every interval")
    halves: Halves = Field(description="of the records")
    queries: list[QueryCount] = Field(description="settings of the queries")
    settings: int = Field(ge=0, description="settings of attacks, over targets and references")
    tried_now: int = Field(ge=0, description="settings that this run tried; the others were known")
    winners: list[Winner] = Field(description="by target and attack, the best evaluated first")
    problems: list[str] = Field(description="what could not be tried, and why")
    complete: bool = Field(
        default=True, description="whether every target was swept, and a setting was the best"
    )
    redacted: bool = Field(
        default=False, description="whether files have other names, and no record is quoted"
    )
    seconds: float = Field(ge=0, description="wall-clock")

    @property
    def asked(self) -> int:
        """Questions put to models in this run."""
        return sum(query.asked for query in self.queries)


@dataclass(frozen=True)
class Row:
    """A setting and what it achieved.

    Attributes
    ----------
    queries : by dotted key, those that matter to the attack.
    asked, answers : of the setting of the queries; see :class:`QueryCount`.
    """

    setting: Setting
    found: Evaluated
    queries: Mapping[str, Value]
    asked: int
    answers: int


def redact_sweep(
    result: SweepResult, rows: Sequence[Row], disguise: Disguise
) -> tuple[SweepResult, list[Row]]:
    """A sweep that names no file and quotes no record."""
    content = disguise.everything(unquoted(result.model_dump()))
    redacted = SweepResult.model_validate({**content, "redacted": True})
    return redacted, [_redacted(row, disguise) for row in rows]


def _redacted(row: Row, disguise: Disguise) -> Row:
    problem = disguise.everything(unquoted(row.found.problem, may_quote=True))
    return replace(
        row,
        setting=replace(row.setting, parameters=disguise.everything(dict(row.setting.parameters))),
        found=row.found.model_copy(update={"problem": problem}),
        queries=disguise.everything(dict(row.queries)),
    )


def sweep_table(rows: Sequence[Row], rates: Sequence[float], objective: ObjectiveSpec) -> pa.Table:
    """One row per setting.

    Returns
    -------
    Table with columns target, attack, reference, neighbors (where they have names), ``query.KEY``
    for each swept key, and ``parameter.NAME`` for each swept parameter (null where the attack has
    none of that name), objective (on the calibration half), ``calibration.auc``,
    ``calibration.tpr@RATE``, the same of ``evaluation``, numbers of records of each half,
    queries_asked, answers, problem.
    """
    columns: dict[str, Any] = {
        "target": pa.array([row.setting.place.target for row in rows], pa.string()),
        "attack": pa.array([row.setting.place.attack for row in rows], pa.string()),
        "reference": pa.array([row.setting.place.reference for row in rows], pa.string()),
    }
    if any(row.setting.place.neighbors for row in rows):
        columns["neighbors"] = pa.array(
            [row.setting.place.neighbors or None for row in rows], pa.string()
        )
    for key in _names(row.queries for row in rows):
        columns[f"query.{key}"] = _column([row.queries.get(key) for row in rows])
    for name in _names(row.setting.parameters for row in rows):
        columns[f"parameter.{name}"] = _column([row.setting.parameters.get(name) for row in rows])
    columns["objective"] = pa.array(
        [objective_of(row.found.calibration, rates, objective) for row in rows], pa.float64()
    )
    for half in ("calibration", "evaluation"):
        points = [getattr(row.found, half) for row in rows]
        for name in ("auc", "n_members", "n_non_members", "n_unscored"):
            kind = pa.float64() if name == "auc" else pa.int64()
            values = [None if p is None else getattr(p, name) for p in points]
            columns[f"{half}.{name}"] = pa.array(values, kind)
        for place, rate in enumerate(rates):
            values = [None if p is None else p.tpr[place] for p in points]
            columns[f"{half}.tpr@{rate:g}"] = pa.array(values, pa.float64())
    columns["queries_asked"] = pa.array([row.asked for row in rows], pa.int64())
    columns["answers"] = pa.array([row.answers for row in rows], pa.int64())
    columns["problem"] = pa.array(hidden_in([row.found.problem for row in rows]), pa.string())
    return pa.table(columns)


def _names(mappings: Iterable[Mapping[str, Value]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _column(values: Sequence[Value | None]) -> pa.Array:
    """Values of one type, or as JSON where they are of several."""
    values = hidden_in(list(values))
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pa.array(values, pa.bool_())
    if all(type(value) is int for value in present):
        return pa.array(values, pa.int64())
    if all(type(value) in (int, float) for value in present):
        return pa.array(values, pa.float64())
    if all(isinstance(value, str) for value in present):
        return pa.array(values, pa.string())
    return pa.array([None if v is None else json.dumps(v) for v in values], pa.string())


def is_redacted(folder: Folder) -> bool:
    """Whether the sweep whose files are in a folder names no file and quotes no record."""
    found = folder.exists(RESULT_FILE) and json.loads(folder.read(RESULT_FILE))
    return isinstance(found, dict) and found.get("redacted") is True


def write_sweep(folder_url: str, result: SweepResult, table: pa.Table, page: str) -> None:
    """Write ``sweep.parquet``, ``sweep.html`` and, last, ``sweep.json``; each is seen whole."""
    folder = Folder(folder_url)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    folder.write(TABLE_FILE, sink.getvalue().to_pybytes())
    folder.write(SWEEP_FILE, page.encode())
    folder.write(RESULT_FILE, hidden_json(result.model_dump_json()).encode())
