"""Reports that can be passed on: what was found, without the records."""

from __future__ import annotations

from typing import Any

import yaml

from raymia.results.disguise import Disguise
from raymia.results.result import RunResult

PUBLIC = frozenset({"attacks", "versions", "created", "stages"})
"""What names no record and no file; the keys of evidence are among it."""
_REPETITION = "a repetition of "
_CAME = "; came: "


def redact(result: RunResult, disguise: Disguise) -> RunResult:
    """Leave out what the examples hold of texts and pictures, and call records and files by other
    names; scores and changes stay.

    A result that is redacted already is left as it is.
    """
    if result.redacted:
        return result
    content: dict[str, Any] = result.model_dump()
    for example in content["text_examples"]:
        example |= {"pieces": [], "cut": 0}
    for example in content["image_examples"]:
        example |= {"image": None, "neighbors": []}
    for one in content["set_aside"]:
        one["where"] = disguise.place(one["where"])
        one["reason"] = _reason(one["reason"], disguise)
    content["audit_yaml"] = yaml.safe_dump(
        disguise.everything(yaml.safe_load(result.audit_yaml)), sort_keys=False
    )
    for key in content.keys() - PUBLIC:
        content[key] = disguise.everything(content[key])
    return RunResult.model_validate({**content, "redacted": True})


def _reason(reason: str, disguise: Disguise) -> str:
    """Why a record was set aside, without what came, which may be of its content."""
    if reason.startswith(_REPETITION):
        return _REPETITION + disguise.place(reason.removeprefix(_REPETITION))
    return reason.partition(_CAME)[0]
