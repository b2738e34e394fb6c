"""How records of any format are read: which format they are of, and their rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raymia.records.base import (
    Given,
    Others,
    RecordSet,
    gather_others,
    gather_records,
    group_name,
)
from raymia.records.conversations import (
    COLUMNS,
    LOSS_MASKS,
    NOT_TRAINED,
    OPTIONAL,
    OTHER_MASKS,
    SHARE_GPT,
    SYSTEM,
    TRAINED,
    canonical,
    content_id,
    found_format,
    has_names_of_share_gpt,
    payload_of,
)
from raymia.records.tables import TableRow, column_names, read_rows
from raymia.records.texts import SCHEMA, checked_texts
from raymia.spec import FORMATS, RecordFormat, TextRecordsSpec
from raymia.util.errors import InputError

MASKED = (
    "have a mask of the loss, and it is assumed that the training went by it; say `loss_on: all` "
    "where it did not"
)
WEIGHTED = (
    "have turns of the assistant with a weight of 0, and it is assumed that these carried no loss "
    "unless `loss_on` is `all`; leave the key out where the training did not read it, as TRL's "
    "does not"
)
NAMED = (
    "have turns by ShareGPT's human and gpt, and it is assumed that the training read them as user "
    "and assistant; TRL keeps the names"
)
WITH_SYSTEM = (
    "have a system prompt in a column of its own, and it is assumed that it stood before the "
    "turns, as axolotl and LLaMA-Factory put it; leave the column out where the training did not "
    "read it, as TRL's does not"
)
CALLED = (
    "have turns of the role function_call, on which LLaMA-Factory trains and which are not scored "
    "unless `loss_on` is `all`; where it trained, give them as turns of the assistant with "
    "tool_calls, or the records as tokens with labels"
)
TRUTHS = {"true": True, "false": False, "1": True, "0": False}
"""What `datasets` reads as true or false in a file of texts."""
ALPACA = {"instruction", "output"}
NAMES = (
    "prompt and completion, or chosen and rejected; a conversation is a list of turns, called "
    "messages"
)
FLAT = (".csv", ".tsv", ".txt")
TELLING = frozenset({*(name for names in COLUMNS.values() for name in names), SHARE_GPT})
"""Columns by which a format is known, beside that of texts."""
OF_LOSS = ("labels", *LOSS_MASKS)
"""Columns that say which tokens carried a loss."""


def format_of_records(spec: TextRecordsSpec) -> RecordFormat:
    """The format of an audit's records: as the audit file has it, or as their columns say it.

    Raises
    ------
    InputError
        If the columns leave it open, or not all files are of one format.
    """
    if spec.format is not None:
        return spec.format
    if "text_column" in spec.model_fields_set:
        return "text"
    paths = (*spec.members, *spec.non_members, *spec.candidates)
    found: dict[str, RecordFormat] = {}
    problems: list[str] = []
    for path in paths:
        try:
            found[path] = _format_of(path, spec.text_column)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    kinds = {*found.values()}
    if len(kinds) > 1:
        each = ", ".join(f"{path} has {kind}" for path, kind in found.items())
        raise InputError(
            f"records: files of different formats: {each}; give files of one format, or name it as "
            "`format` under `records`"
        )
    return kinds.pop() if kinds else "text"


def read_records(spec: TextRecordsSpec, kind: RecordFormat = "text") -> RecordSet:
    """Read members, non-members and candidates; see :func:`gather_records`."""
    by_columns = spec.format is None and "text_column" not in spec.model_fields_set
    reader = _Reader(kind, spec.text_column, spec.group_column, by_columns)
    return gather_records(spec, reader.read, SCHEMA)


def places_of(spec: TextRecordsSpec, kind: RecordFormat, ids: Collection[str]) -> dict[str, str]:
    """Where records stand in their files, by id; these are read again."""
    found: dict[str, str] = {}
    reader = _Reader(kind, spec.text_column, spec.group_column)
    for path in (*spec.members, *spec.non_members, *spec.candidates) if ids else ():
        for given in reader.read(path):
            if given.record_id in ids:
                found.setdefault(given.record_id, given.where)
    return found


def read_others(
    paths: Sequence[str], kind: RecordFormat | None, column: str, others: Others
) -> dict[str, str]:
    """Read what is none of the records; see :func:`gather_others`.

    Parameters
    ----------
    kind : None where it is not known; whether the files can be read is all that is found out then.
    column : of texts, where they are texts.
    """
    if kind is None:
        for path in paths:
            column_names(path)
        return {}
    name = "a text" if kind == "text" else f"a record of the format {kind}"
    return gather_others(paths, _Reader(kind, column).read, name, others)


@dataclass
class _Reader:
    """Reads records of one format, and refuses what leaves open what they are.

    Attributes
    ----------
    by_columns : whether columns told the format; one that comes later may tell another.
    first : of tokens, by path: its first record, and which columns say there what carried a loss.
    """

    kind: RecordFormat
    text_column: str
    group_column: str | None = None
    by_columns: bool = False
    first: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def read(self, path: str) -> Iterator[Given]:
        """The records of a path; see :func:`gather_records`."""
        if self.kind == "text":
            columns = {"text_column": self.text_column, "group_column": self.group_column}
            yield from checked_texts(self._checked(read_rows(path, columns), [self.text_column]))
            return
        found = column_names(path)
        wanted = {**_wanted(path, self.kind, found), "group_column": self.group_column}
        rows = read_rows(path, wanted, optional=OPTIONAL[self.kind])
        self._check_masks(path, found)
        for row in self._checked(rows, found):
            yield self._given(path, row)

    def _checked(self, rows: Iterable[TableRow], found: Sequence[str]) -> Iterator[TableRow]:
        """The rows of a path; columns that were not found at first are in later rows or files."""
        known = {*found}
        for row in rows:
            if new := {*row.has} - known:
                known |= new
                self._check_masks(row.where, new)
                self._check_format(row.where, new, known)
            yield row

    def _check_masks(self, where: str, names: Iterable[str]) -> None:
        masks = {name for name in names if name.endswith(("mask", "masks"))}
        unknown = sorted(masks - {*LOSS_MASKS} - OTHER_MASKS)
        if self.kind == "tokens" and unknown:
            raise InputError(
                f"{where}: {_listed(unknown)} may say which tokens carried a loss, and is not "
                "known; call it loss_mask if it is 0 where none did, or leave it out"
            )

    def _check_format(self, where: str, new: Collection[str], known: Collection[str]) -> None:
        """Refuse columns that come late and leave open what the columns before them told."""
        telling = sorted(name for name in new if name in {*TELLING, self.text_column})
        if not self.by_columns or not telling:
            return
        if found_format(known, self.text_column) != self.kind:
            raise InputError(
                f"{where}: {_listed(telling)} comes here for the first time, and the columns "
                f"before said that records are of the format {self.kind}; name the format as "
                f"`format` under `records`: {', '.join(FORMATS)}"
            )

    def _given(self, path: str, row: TableRow) -> Given:
        reason = row.why_not(*COLUMNS[self.kind])
        content: Mapping[str, Any] = {}
        if reason is None:
            content, reason = canonical(self.kind, _with_truths(path, row.values))
        if reason is not None:
            return Given(row.where, reason=reason)
        if self.kind == "tokens":
            self._check_loss(path, row)
        group = group_name(row.values.get("group_column"))
        remarks = _remarks(row, content)
        return Given(row.where, content_id(content), payload_of(content), group, remarks=remarks)

    def _check_loss(self, path: str, row: TableRow) -> None:
        """Refuse tokens that do not say what carried a loss as those before them do, by the same
        columns within a path; where nothing says it, all tokens would be scored."""
        said = [name for name in OF_LOSS if row.values.get(name) is not None]
        own = self.first.setdefault(path, (row.where, said))
        of_all = next(iter(self.first.values()))
        where, before = own if said != own[1] else of_all
        if said == own[1] and bool(said) == bool(before):
            return
        raise InputError(
            f"{row.where}: which tokens carried a loss is said by {_listed(said) or 'no column'}, "
            f"and at {where} by {_listed(before) or 'none'}; expected the same of all records, as "
            "all tokens are scored where nothing says it. Give labels for each record, the token "
            f"itself where it carried a loss and {NOT_TRAINED} elsewhere, or leave such columns out"
        )


def _remarks(row: TableRow, content: Mapping[str, Any]) -> tuple[str, ...]:
    """What one should know of how a row was read."""
    messages = content.get("messages", ())
    said = {
        MASKED: any(row.values.get(name) is not None for name in LOSS_MASKS),
        WEIGHTED: any(TRAINED in message for message in messages),
        NAMED: has_names_of_share_gpt(row.values.get("messages")),
        WITH_SYSTEM: bool(row.values.get(SYSTEM)),
        CALLED: any(message["role"] == "function_call" for message in messages),
    }
    return tuple(remark for remark, holds in said.items() if holds)


def _with_truths(path: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a row whose label is a text, where a file has nothing but texts."""
    label = values.get("label")
    if not isinstance(label, str) or not _is_flat(path):
        return values
    return {**values, "label": TRUTHS.get(label.strip().lower(), label)}


def _is_flat(path: str) -> bool:
    return path.partition("?")[0].lower().removesuffix(".gz").removesuffix(".zst").endswith(FLAT)


def _wanted(path: str, kind: RecordFormat, found: Sequence[str]) -> dict[str, str | None]:
    """The columns to read, by the names that raymia knows them by; some may be missing.

    Parameters
    ----------
    found : the first columns of the path.
    """
    renamed = {"messages": SHARE_GPT} if "messages" not in found and SHARE_GPT in found else {}
    missing = [name for name in COLUMNS[kind] if renamed.get(name, name) not in found]
    if missing:
        raise InputError(
            f"{path}: records of the format {kind} have {_listed(COLUMNS[kind])}, and here there "
            f"is no {_listed(missing)}; found: {', '.join(found) or 'no column'}"
        )
    if _is_flat(path) and kind not in ("completion", "unpaired"):
        raise InputError(
            f"{path}: records of the format {kind} are nested, which no such file holds; save them "
            "as JSONL or Parquet"
        )
    names = (*COLUMNS[kind], *OPTIONAL[kind])
    return {name: renamed.get(name, name) for name in names}


def _format_of(path: str, text_column: str) -> RecordFormat:
    found = column_names(path)
    kind = found_format(found, text_column)
    if kind is not None:
        return kind
    known = {name for columns in COLUMNS.values() for name in columns} | {SHARE_GPT}
    if {*found} >= ALPACA and text_column not in found:
        raise InputError(
            f"{path}: instruction and output are Alpaca's columns, and what a training wrote "
            "around an instruction is not known here; give what it wrote as `prompt`, and the "
            f"output as `completion`; found: {', '.join(found)}"
        )
    if not known & {*found} and len(found) > 1:
        raise InputError(
            f"{path}: no column {text_column!r}; found: {', '.join(found)}. Name the column of "
            "texts as text_column in the audit file; where a record is more than a text, call the "
            f"columns {NAMES}"
        )
    if not known & {*found}:
        return "text"  # whose reader says which column is missing
    if text_column not in found and not any({*found} >= {*columns} for columns in COLUMNS.values()):
        raise InputError(
            f"{path}: its columns are not all that any format has; found: {', '.join(found)}. Call "
            f"them {NAMES}"
        )
    raise InputError(
        f"{path}: its columns leave open what a record is; found: {', '.join(found)}. Name the "
        f"format as `format` under `records`: {', '.join(FORMATS)}"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)
