"""The events that a run leaves behind: read, and redacted; `raymia.run.status` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from raymia.results.disguise import Disguise
from raymia.storage.files import Folder
from raymia.util.credentials import hidden_in
from raymia.util.errors import InputError
from raymia.util.reasons import CAME

FOLDER = "events"
REDACTED = "redacted"
"""Key of an event whose reason is redacted already."""


def read_events(folder: Folder) -> dict[str, list[dict[str, Any]]]:
    """Events by run, in order; runs in the order in which they began."""
    while True:
        runs: dict[str, dict[int, dict[str, Any]]] = {}
        try:
            for name in folder.names(FOLDER, ".jsonl"):
                for event in _events_in(folder, f"{FOLDER}/{name}"):
                    runs.setdefault(event["run"], {})[event["n"]] = event
        except FileNotFoundError:
            continue  # merged since it was listed
        return {run: [events[n] for n in sorted(events)] for run, events in sorted(runs.items())}


def redact_events(folder: Folder, disguise: Disguise) -> None:
    """Write the events of all runs of a folder anew, redacted; no run may be writing there."""
    for name in folder.names(FOLDER, ".jsonl"):
        place = f"{FOLDER}/{name}"
        lines = [line_of(redacted(event, disguise)) for event in _events_in(folder, place)]
        folder.write(place, "".join(lines).encode())


def redacted(event: Mapping[str, Any], disguise: Disguise) -> Mapping[str, Any]:
    """An event whose reason quotes no record and names no file."""
    if "why" not in event or event.get(REDACTED):
        return event
    return {**event, "why": disguise.text(event["why"].partition(CAME)[0]), REDACTED: True}


def line_of(event: Mapping[str, Any]) -> str:
    """An event as it stands in a file."""
    return json.dumps(hidden_in(event)) + "\n"


def _events_in(folder: Folder, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(folder.read(name).decode(errors="replace").splitlines(), start=1):
        try:
            event: dict[str, Any] = json.loads(line)
            complete = event.keys() >= {"run", "n", "time", "event"}
        except (ValueError, AttributeError):
            complete = False
        if not complete:
            raise InputError(
                f"{folder.place(name)} line {number}: not an event of a run; delete the file, "
                "which only tells how that run went"
            )
        yield event
