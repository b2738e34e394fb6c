"""`raymia demo`: small audits of models that are trained on the spot."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from raymia.results.result import RunResult
    from raymia.spec import EngineKind


class Demo(StrEnum):
    """What the demo audits."""

    TEXT = "text"
    CHAT = "chat"
    IMAGES = "images"


PLACES = {
    Demo.TEXT: Path("raymia-demo"),
    Demo.CHAT: Path("raymia-demo", "chat"),
    Demo.IMAGES: Path("raymia-demo", "images"),
}


def run(
    of: Demo, folder: Path, console: Console, seed: int, engine: EngineKind | None
) -> tuple[RunResult, str]:
    """Run a demo; the result, and the folder its report is in."""
    if of is Demo.TEXT:
        from raymia.demo.text import DemoSettings, run_demo

        return run_demo(folder, console, DemoSettings(seed=seed), engine)
    if of is Demo.CHAT:
        from raymia.demo.chat import ChatDemoSettings, run_chat_demo

        return run_chat_demo(folder, console, ChatDemoSettings(seed=seed), engine)
    from raymia.demo.images import ImageDemoSettings, run_image_demo

    return run_image_demo(folder, console, ImageDemoSettings(seed=seed), engine)
