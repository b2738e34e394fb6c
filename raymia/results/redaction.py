"""Reports that can be passed on: what was found, without the records."""

from __future__ import annotations

import re
from typing import Any

import yaml

from raymia.results.disguise import Disguise
from raymia.results.image_result import ImageExample
from raymia.results.result import RunResult
from raymia.results.text_result import TextExample
from raymia.util.reasons import CAME, REPEATED

PUBLIC = frozenset({"attacks", "versions", "created", "stages"})
"""What names no record and no file; the keys of evidence are among it."""
QUOTING = frozenset({"reason", "problems"})
"""Keys of what may quote a record, as the error of a question does."""
_EARLIER = re.compile(
    r"(refused by the endpoint|the template cannot write it|\w+(?:Error|Exception)): "
    r"|(it has the token) \d"
)
"""Reasons without an answer as stores have them from before what came stood at their end."""


def without_content(result: RunResult, *, texts: bool, pictures: bool) -> RunResult:
    """Leave out texts and pictures that the audit does not ask for; ids, scores and changes stay.

    Parameters
    ----------
    texts, pictures : whether the audit asks for them.
    """
    bare: dict[str, Any] = {}
    if not texts and result.text_examples:
        bare["text_examples"] = [_without_text(example) for example in result.text_examples]
    if not pictures and result.image_examples:
        bare["image_examples"] = [_without_picture(example) for example in result.image_examples]
    return result.model_copy(update={**bare, "content_left_out": True}) if bare else result


def without_quotes(result: RunResult) -> RunResult:
    """Leave out of reasons and problems what came from records, which they may quote."""
    return RunResult.model_validate(unquoted(result.model_dump()))


def unquoted(held: Any, *, may_quote: bool = False) -> Any:
    """The same, whatever it is nested in, with reasons and problems cut before what came."""
    if isinstance(held, dict):
        return {key: unquoted(own, may_quote=key in QUOTING) for key, own in held.items()}
    if isinstance(held, list | tuple):
        return [unquoted(own, may_quote=may_quote) for own in held]
    return held.partition(CAME)[0] if may_quote and isinstance(held, str) else held


def redact(result: RunResult, disguise: Disguise) -> RunResult:
    """Leave out what the examples hold of texts and pictures, and call records and files by other
    names; scores and changes stay.

    A result that is redacted already is left as it is.
    """
    if result.redacted:
        return result
    content: dict[str, Any] = without_content(result, texts=False, pictures=False).model_dump()
    for one in content["set_aside"]:
        one["where"] = disguise.place(one["where"])
        one["reason"] = _reason(one["reason"], disguise)
    for one in content["dropped"]:
        one["reason"] = _reason(one["reason"], disguise)
    content = unquoted(content)
    content["audit_yaml"] = yaml.safe_dump(
        disguise.everything(yaml.safe_load(result.audit_yaml)), sort_keys=False
    )
    for key in content.keys() - PUBLIC:
        content[key] = disguise.everything(content[key])
    return RunResult.model_validate({**content, "redacted": True})


def _without_text(example: TextExample) -> TextExample:
    return example.model_copy(update={"pieces": [], "cut": 0})


def _without_picture(example: ImageExample) -> ImageExample:
    return example.model_copy(update={"image": None, "neighbors": []})


def _reason(reason: str, disguise: Disguise) -> str:
    """Why a record was set aside or has no answer, without what came, which may be of its
    content."""
    if reason.startswith(f"{REPEATED} "):
        return f"{REPEATED} {disguise.place(reason.removeprefix(f'{REPEATED} '))}"
    earlier = _EARLIER.match(reason)
    return (earlier[1] or earlier[2]) if earlier else reason.partition(CAME)[0]
