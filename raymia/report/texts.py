"""The section of texts: records token by token, laid out for the page."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.results.result import RunResult
from raymia.results.text_result import TextExample, TextPiece

FAINTEST = 0.1
"""Below this share of the largest difference a token has no color."""


@dataclass(frozen=True)
class Piece:
    """A token as it is shown.

    Attributes
    ----------
    kind : "rise" or "fall" for its color, "context" and "cut" for what was not scored, "" for none.
    depth : how deep the color is, from 0 to 1 at the largest difference among a target's texts.
    title : its numbers; "" where it was not scored.
    turn : the role of the turn that begins with it; "" within a turn.
    left_out : characters after it that are left out.
    """

    text: str
    kind: str
    depth: str
    title: str
    turn: str = ""
    left_out: int = 0


@dataclass(frozen=True)
class ShownText:
    """One text and what is said of it.

    Attributes
    ----------
    card : the record it is.
    typical : what its tokens are compared with; "" where they are not.
    """

    card: TextExample
    pieces: list[Piece]
    typical: str


@dataclass(frozen=True)
class TargetTexts:
    """What is shown of one target."""

    target: str
    examples: list[ShownText]

    @property
    def typical(self) -> str:
        """What all its texts are compared with; "" where that differs."""
        found = {example.typical for example in self.examples if example.typical}
        return found.pop() if len(found) == 1 else ""

    @property
    def has_context(self) -> bool:
        """Whether any text has parts that no loss was on."""
        return any(p.kind in ("context", "cut") for e in self.examples for p in e.pieces)

    @property
    def has_colors(self) -> bool:
        """Whether any token is compared with what is typical."""
        return any(example.typical for example in self.examples)


def target_texts(result: RunResult) -> list[TargetTexts]:
    """Lay out the texts, target by target in the order of the metrics."""
    having = {example.target: None for example in result.text_examples}
    order = [metrics.target for metrics in result.metrics] + list(having)
    return [_of_target(result, name) for name in dict.fromkeys(order) if name in having]


def _of_target(result: RunResult, target: str) -> TargetTexts:
    examples = [example for example in result.text_examples if example.target == target]
    differences = [abs(d) for e in examples for p in e.pieces if (d := difference(p)) is not None]
    scale = max(differences, default=0.0)
    return TargetTexts(
        target,
        [ShownText(e, [_piece(p, scale) for p in e.pieces], _typical(e)) for e in examples],
    )


def difference(piece: TextPiece) -> float | None:
    """How far a token's log-probability is above what is typical; None where not known."""
    if piece.log_prob is None or piece.typical is None:
        return None
    return piece.log_prob - piece.typical


def _piece(piece: TextPiece, scale: float) -> Piece:
    kind, depth, title = _look(piece, scale)
    return Piece(piece.text, kind, depth, title, piece.turn or "", piece.left_out)


def _look(piece: TextPiece, scale: float) -> tuple[str, str, str]:
    """Kind, depth and title of a token as it is shown."""
    above = difference(piece)
    if piece.log_prob is None:
        return "" if piece.part == "scored" else piece.part, "0", ""
    title = f"log p {piece.log_prob:.2f}"
    if above is None or piece.typical is None:
        return "", "0", title
    title += f", typical {piece.typical:.2f}: {above:+.2f}"
    share = abs(above) / scale if scale else 0.0
    if share < FAINTEST:
        return "", "0", title
    return "rise" if above > 0 else "fall", f"{share:.2f}", title


def _typical(example: TextExample) -> str:
    if all(difference(piece) is None for piece in example.pieces):
        return ""
    if example.reference is None:
        return "Typical is the mean log-probability under the model's own distribution there."
    return f"Typical is the log-probability that {example.reference} gives the same token there."
