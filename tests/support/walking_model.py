"""A checkpoint that notes every forward pass, and stays in one, or cannot be loaded, as told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from small_audit import reweigh

CODE = """
import time
from pathlib import Path
from transformers import GPT2LMHeadModel

class Walks(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        if Path(config.notes, "refuse").exists():
            raise ValueError("these weights are not to be had")
        self.transformer.register_forward_pre_hook(lambda *_: self.step())

    def step(self):
        with Path(self.config.notes, "steps").open("ab") as file:
            file.write(b".")
        deadline = time.monotonic() + 240
        while Path(self.config.notes, "stay").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
"""


@dataclass(frozen=True)
class Walker:
    """Attributes
    ----------
    folder : of the checkpoint.
    notes : with a file "steps"; "stay" and "refuse" are there while it is to do so.
    """

    folder: Path
    notes: Path

    @property
    def has_begun(self) -> bool:
        return (self.notes / "steps").exists()


def make_walker(source: Path, place: Path) -> Walker:
    """A walker with the weights of a checkpoint."""
    walker = Walker(place / "walker", place / "notes")
    walker.notes.mkdir(parents=True)
    reweigh(source, walker.folder, lambda tensor: tensor)
    config = json.loads((walker.folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "walks.Walks"}, "notes": str(walker.notes)}
    (walker.folder / "config.json").write_text(json.dumps(config))
    (walker.folder / "walks.py").write_text(CODE)
    return walker
