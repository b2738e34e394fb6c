"""What a redacted report calls records and files: names that only who has the secret can tell."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from raymia.util.credentials import hidden
from raymia.util.hashing import DIGEST_HEX_CHARS

_ID = re.compile(rf"\b[0-9a-f]{{{DIGEST_HEX_CHARS}}}\b")
_ROW = re.compile(r"(.*?)((?: (?:line|row|element) \d+)?)", re.DOTALL)
_PATH = re.compile(r"(?:(?<![\w.~/<-])/[\w.~@-]|\b[a-z][a-z0-9+.-]*://)[^\s\"'<>|,;:()\[\]{}]*")


@dataclass(frozen=True)
class Disguise:
    """Other names for ids, paths and addresses; the same secret gives the same names.

    An id is a hash of a record's content, so whoever guesses a short text can tell whether it is
    among the records. What takes its place depends on the secret too.

    Parameters
    ----------
    paths : that are known by name, as those of an audit file, with whatever is in their names.
    """

    secret: bytes
    paths: tuple[str, ...] = field(default=())

    @classmethod
    def of_audit(cls, secret: bytes, settings: Mapping[str, Any]) -> Disguise:
        """The disguise of an audit, which knows what its file names, as it is written there and
        without credentials."""
        given = [text for text in _texts(settings) if is_path(text)]
        named = {form for text in given for form in (text, hidden(text))}
        folders = {str(folder) for path in named for folder in PurePosixPath(path).parents}
        paths = named | {folder for folder in folders if folder.count("/") > 1}
        return cls(secret, tuple(sorted(paths, key=len, reverse=True)))

    def id(self, record_id: str) -> str:
        return self._keyed(record_id)[:DIGEST_HEX_CHARS]

    def ids(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """A column of ids; each is looked at once."""
        coded = column.combine_chunks().dictionary_encode()
        names = pa.array([self.id(one) for one in coded.dictionary.to_pylist()], pa.string())
        return pa.chunked_array([names.take(coded.indices)], pa.string())

    def path(self, path: str) -> str:
        return f"<file {self._keyed(hidden(path))[:8]}>"

    def place(self, where: str) -> str:
        """A file and a row in it: the row stays."""
        path, row = _ROW.fullmatch(where).groups()  # type: ignore[union-attr] # fits any text
        return f"{self.path(path)}{row}"

    def text(self, text: str) -> str:
        """A sentence with other names for the ids, paths and addresses in it."""
        for path in self.paths:
            text = text.replace(path, self.path(path))
        text = _PATH.sub(lambda found: self.path(found[0]), hidden(text))
        text = re.sub(r"(<file [0-9a-f]{8}>)/[^\s:;,]*", r"\1", text)
        return _ID.sub(lambda found: self.id(found[0]), text)

    def scores(self, table: pa.Table) -> pa.Table:
        """A table of scores with other ids."""
        place = table.schema.get_field_index("record_id")
        return table.set_column(place, table.schema.field(place), self.ids(table["record_id"]))

    def everything(self, value: Any) -> Any:
        """All texts of what JSON can hold."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                key: self.id(inner) if key == "record_id" and inner else self.everything(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.everything(inner) for inner in value]
        return value

    def _keyed(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), "sha256").hexdigest()


def is_path(text: str) -> bool:
    """Whether a value of an audit file says where something lies: here, or at an address."""
    return text.startswith(("/", "~")) or "://" in text


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
