"""Where what is said to a person is printed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from raymia.util.credentials import sayable


class Terminal(Console):
    """Standard output. All that is drawn there is :func:`raymia.util.credentials.sayable`, and was
    before its lines were broken."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        if isinstance(renderable, str):
            renderable = sayable(renderable)
        elif isinstance(renderable, Text):
            said = sayable(renderable.plain)
            if said != renderable.plain:
                renderable = renderable.blank_copy(said)
        return super().render(renderable, options)


def terminal() -> Terminal:
    """Standard output. Names are printed as they are: no sign in them is taken for a picture, and
    no bracket for a style."""
    return Terminal(emoji=False, markup=False)
