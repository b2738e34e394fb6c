"""Settings that were tried, kept in the store: what is interrupted goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from raymia.evidence.sealed import damaged, read_sealed, write_sealed
from raymia.storage.files import Folder
from raymia.sweep.content import code_digest
from raymia.sweep.evaluate import Evaluated, Split
from raymia.util.hashing import digest

_LIST = TypeAdapter(list[Evaluated])


class Tried:
    """The results of settings, by their keys.

    They lie under ``sweeps/<hash>/`` in the store, where the hash is of everything beside evidence
    and parameters that a result depends on: the halves, the rates, and the code. A file holds some
    results and is written whole.
    """

    def __init__(self, store_url: str, halves: Split, rates: Sequence[float]) -> None:
        self.folder = Folder(store_url)
        self.place = f"sweeps/{digest([halves.digest, list(rates), code_digest()])}"

    def read(self) -> dict[str, Evaluated]:
        """Everything that was tried.

        Raises
        ------
        RaymiaError
            If a file is damaged.
        """
        found: dict[str, Evaluated] = {}
        for name in self.folder.names(self.place, ".json"):
            place = f"{self.place}/{name}"
            content, _ = read_sealed(self.folder, place)
            try:
                found.update((each.key, each) for each in _LIST.validate_json(content))
            except ValidationError as error:
                why = f"no results of settings: {error.errors()[0]['msg']}"
                raise damaged(self.folder, place, why) from None
        return found

    def commit(self, results: Sequence[Evaluated]) -> None:
        """Keep some results; they are seen together or not at all."""
        if results:
            name = digest(sorted(result.key for result in results))
            content = _LIST.dump_json(list(results))
            write_sealed(self.folder, f"{self.place}/{name}.json", content)
