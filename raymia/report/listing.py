"""Tables whose names stay whole, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

GAP = 1
"""Blanks between two cells."""
INDENT = "  "


@dataclass(frozen=True)
class Listing:
    """Rows of numbers, each with a name before them.

    A name that leaves no room for its numbers stands on a line of its own, above them. Numbers are
    never broken.

    Attributes
    ----------
    headings : of the names, then of each column of numbers.
    rows : each a name and its numbers; a row may have fewer than there are headings.
    """

    headings: Sequence[str]
    rows: Sequence[tuple[Text, Sequence[Text]]]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        of_names, *of_cells = self.headings
        widths = [
            max(len(heading), *(row[n].cell_len for _, row in self.rows if n < len(row)), 0)
            for n, heading in enumerate(of_cells)
        ]
        room = options.max_width - sum(widths) - GAP * len(widths)
        longest = max((name.cell_len for name, _ in self.rows), default=0)
        first = max(len(of_names), min(longest, room))
        yield _line(Text(of_names, "bold"), [Text(h, "bold") for h in of_cells], first, widths)
        yield _unbroken(Text("─" * min(options.max_width, first + sum(widths) + GAP * len(widths))))
        for name, cells in self.rows:
            if name.cell_len > first:
                yield Text.assemble(name, overflow="fold")
                name = Text(INDENT)
            yield _line(name, cells, first, widths)


def _line(name: Text, cells: Sequence[Text], first: int, widths: Sequence[int]) -> Text:
    line = name.copy()
    line.pad_right(first - name.cell_len)
    for cell, width in zip(cells, widths, strict=False):
        line.append(" " * GAP)
        line.append_text(cell)
        line.pad_right(width - cell.cell_len)
    line.rstrip()
    return _unbroken(line)


def _unbroken(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ignore"
    return line
