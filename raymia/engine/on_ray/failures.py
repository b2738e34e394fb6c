"""What a worker raised, without what Ray puts around it."""

from __future__ import annotations

import ray

from raymia.util.errors import RaymiaError


def own_error(error: BaseException) -> RaymiaError:
    """The error that a worker raised, out of the layers that Ray and Ray Data put around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ray.exceptions.RayTaskError):
            # It is also an instance of its cause's class, with Ray's traceback as its text.
            seen = seen.cause
        elif isinstance(seen, RaymiaError):
            return seen
        else:
            seen = getattr(seen, "cause", None) or seen.__cause__
    return RaymiaError(f"a worker failed: {str(error).strip().splitlines()[-1]}")
