"""Reports that can be passed on: what was found, without the records."""

from __future__ import annotations

from raymia.results.result import RunResult


def redact(result: RunResult) -> RunResult:
    """Leave out what the examples hold of texts and pictures; ids, scores and changes stay."""
    return result.model_copy(
        update={
            "redacted": True,
            "text_examples": [
                example.model_copy(update={"pieces": [], "cut": 0})
                for example in result.text_examples
            ],
            "image_examples": [
                example.model_copy(update={"image": None, "neighbors": []})
                for example in result.image_examples
            ],
        }
    )
