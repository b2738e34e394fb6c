"""Rows of tables: of one file, of the files of a folder, or of those that a pattern matches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from raymia.records.formats import READERS, TableRow, columns_in, format_of, read_file
from raymia.records.saved_datasets import read_as_saved
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.storage.shards import files_of, is_one_file
from raymia.util.errors import InputError

__all__ = ["TableRow", "column_names", "is_table", "read_rows"]

LISTED = f"{', '.join(READERS)} (those of lines also compressed, with .gz or .zst after it)"
NO_TABLE = "a file of another kind in a folder of records"


def is_table(path: str) -> bool:
    """Whether a path's name is one of a file that :func:`read_rows` reads."""
    return format_of(path) is not None


def read_rows(
    path: str, columns: Mapping[str, str | None], optional: Collection[str] = ()
) -> Iterator[TableRow]:
    """Yield the rows of a table, each with its place (1-based).

    Parameters
    ----------
    path : a JSONL, JSON, CSV, TSV, text or Parquet file; a folder of such files, searched
        recursively; or a pattern of such files and folders. Files are read in the order of their
        names. Those of a folder that are called otherwise are one row with a reason each, but for
        names that begin with ``.`` or ``_``, which are passed over. Of a folder that `datasets`
        saved, the files that its state.json names are read, and each other one is such a row.
    columns : column names by the key of the audit file that gives them; a key whose column is None
        is left out.
    optional : keys whose columns a file or a row may lack; their values are None there.

    Raises
    ------
    InputError
        If a file is missing, of another format, malformed, or without one of the columns.
    """
    wanted = {key: name for key, name in columns.items() if name is not None}
    with refusals(path, "folder"):
        one = is_one_file(path, is_table(path))
        files = {path: None} if one else _files_of(path)
    if not one and _first_table(files) is None:
        _refuse(path, [*files])
    for file, why_not in files.items():
        if why_not is not None:
            yield TableRow(file, dict.fromkeys(wanted), why_not)
        else:
            yield from _rows_of(file, wanted, optional)


def column_names(path: str) -> list[str]:
    """The columns of a table by its first file, as :func:`read_rows` reads it; none where its rows
    have no names, or there is no such file.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    with refusals(path, "folder"):
        files = {path: None} if is_one_file(path, is_table(path)) else _files_of(path)
    first = _first_table(files)
    if first is None:
        return []
    with refusals(first, format_of(first) or "table"), opened(first) as file:
        return columns_in(first, file)


def _first_table(files: Mapping[str, str | None]) -> str | None:
    return next((file for file, why_not in files.items() if not why_not and is_table(file)), None)


def _files_of(path: str) -> dict[str, str | None]:
    """The files that a path means, in the order in which they are read, each with why it is not
    read, None where it is."""
    found = files_of(path)
    return read_as_saved(
        {
            file: NO_TABLE if is_of_folder and not is_table(file) else None
            for file, is_of_folder in found.items()
        }
    )


def _rows_of(path: str, wanted: Mapping[str, str], optional: Collection[str]) -> Iterator[TableRow]:
    if not is_table(path):
        raise InputError(f"{path}: records are read from files whose names end in {LISTED}")
    with refusals(path, format_of(path) or "table"), opened(path) as file:
        yield from read_file(path, file, wanted, optional)


def _refuse(path: str, files: list[str]) -> None:
    if not files:
        raise InputError(
            f"{path}: no such file, and no file matches it; relative paths start at the audit "
            "file's folder"
        )
    names = ", ".join(file.rsplit("/", 1)[-1] for file in files[:8])
    raise InputError(
        f"{path}: no file of records among those here ({names}); they are read from files whose "
        f"names end in {LISTED}"
    )
