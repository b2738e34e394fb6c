"""What a worker raised, without what Ray puts around it."""

from __future__ import annotations

import re

import ray

from raymia.engine.stage import in_short
from raymia.util.errors import RaymiaError

WRAPPED = "ray.exceptions.UserCodeException: "
CHAINED = "\n\nThe above exception was the direct cause of the following exception:\n\n"

ADVICE = re.compile(r"(\\n|\n|: '|, ')?Failed to [^\n]+ after \d+/\d+ attempts \(total .*", re.S)
"""What Ray Data adds to what an error says, by whatever way it says it."""

OUT_OF_MEMORY = (
    "a worker's process was killed again and again for lack of memory, as Ray does when nearly all "
    "of a machine's is taken; it is shared with whatever else is there: give the pool larger "
    "machines, or let fewer workers run on each, by more `cpus` for each or fewer `actors`"
)


def own_error(error: BaseException) -> RaymiaError:
    """The error that a worker raised, out of the layers that Ray and Ray Data put around it."""
    seen: BaseException | None = error
    while seen is not None:
        cause = seen
        if isinstance(seen, ray.exceptions.RayTaskError):
            # It is also an instance of its cause's class, with Ray's traceback as its text.
            seen = seen.cause
        elif isinstance(seen, RaymiaError):
            return seen
        else:
            seen = getattr(seen, "cause", None) or seen.__cause__
    if isinstance(cause, ray.exceptions.OutOfMemoryError):
        return RaymiaError(OUT_OF_MEMORY)
    if isinstance(cause, ray.exceptions.RayError):
        return _from_text(str(error).strip() or type(error).__name__)
    said = ADVICE.sub("", in_short(cause)).removesuffix(": ")
    return RaymiaError(f"a worker failed: {said}")


def _from_text(text: str) -> RaymiaError:
    """Ray Data's own exception brings what it is about as a traceback alone."""
    text = ADVICE.sub("", text)
    if WRAPPED in text:
        before, _, _ = text.rpartition(CHAINED)
        last = re.search(r"^([\w.]+): (.*)", before.rpartition(CHAINED)[2], re.M | re.S)
        if last is not None and last[1].startswith("raymia."):
            return RaymiaError(last[2])
        text = before or text
    return RaymiaError(f"a worker failed: {text.splitlines()[-1]}")
