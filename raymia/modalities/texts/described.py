"""A record in the terminal, with the tokens that are scored marked."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from raymia.inputs.base import Inputs
from raymia.modalities.texts.pieces import pieces_of, rendered_whole
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.models.endpoints.resolver import Endpoint
from raymia.models.tokenizers import tokenizer_of
from raymia.util.errors import InputError

OPEN, CLOSE = "\u27e6", "\u27e7"
"""Stand around what is scored, where there is no color."""
STYLES = {"scored": "bold green", "context": "dim", "cut": "dim strike"}


def described(inputs: Inputs, row: int, target: str) -> Text:
    """A record as a target reads it."""
    checkpoint = inputs.targets[target]
    known = isinstance(checkpoint, CausalCheckpoint) or (
        isinstance(checkpoint, Endpoint) and checkpoint.tokenizer is not None
    )
    if not known or not isinstance(checkpoint, CausalCheckpoint | Endpoint):
        raise InputError(f"{target!r} is an {checkpoint.family}, whose tokens are not known")
    training = checkpoint.training or Training("text", "all")
    table, tokenizer = inputs.records.table, tokenizer_of(checkpoint)
    payload = table["payload"][row].as_py()
    rendered, cut = rendered_whole(tokenizer, training, payload)
    kind = {True: "member", False: "non-member", None: "candidate"}[table["is_member"][row].as_py()]
    shown = Text(f"{table['record_id'][row].as_py()} ({kind}), as {target} reads it\n")
    if rendered.error is not None or rendered.scored is None:
        shown.append(f"not scored: {rendered.error}\n\n", style="red")
        written, _ = TrainedReader(tokenizer, training).turns(payload)
        return shown.append(written or payload, style=STYLES["context"])
    count = f"{len(rendered.ids):,} tokens, of which {int(rendered.scored.sum()):,} are scored"
    shown.append(f"{count}; {len(cut):,} more were cut off\n\n")
    pieces = pieces_of(tokenizer, training, payload)
    for part, run in groupby(pieces, key=lambda piece: piece.part):
        text = "".join(piece.text for piece in run)
        shown.append(f"{OPEN}{text}{CLOSE}" if part == "scored" else text, style=STYLES[part])
    return shown
