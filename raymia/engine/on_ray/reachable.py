"""Whether a cluster answers at an address, found out within seconds.

Ray itself goes on trying for minutes where nobody answers, and says "failed to connect" of a wrong
token.
"""

from __future__ import annotations

import os

from raymia.engine.on_ray.ray_private import (
    UNAUTHENTICATED,
    AddressUnknownError,
    head_address,
    lacks_token,
    why_no_answer,
)
from raymia.util.errors import InputError

SECONDS = 5.0
TRIES = 2
TOKEN_HELP = (
    "set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN, in a file named by "
    "RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token (`ray get-auth-token` on the head prints it)"
)


def check_answers(address: str) -> None:
    """Refuse an address at which no Ray answers, or one that does not take our token.

    Raises
    ------
    InputError
        Naming the address and what to check; never the token.
    """
    if "://" in address:  # Ray Client has a server, and errors, of its own
        return
    try:
        found = head_address(address)
    except AddressUnknownError:
        return
    except Exception:  # of several kinds, for a name that nobody knows too
        raise InputError(
            f"RAY_ADDRESS: {address} is no address of a cluster; give HOST:PORT of its head"
        ) from None
    if found is None:
        raise InputError(
            f"RAY_ADDRESS: {address}, but no Ray runs on this machine; give HOST:PORT of a head, "
            "or leave RAY_ADDRESS unset to start Ray here"
        )
    if lacks_token():
        raise InputError(
            f"RAY_ADDRESS: RAY_AUTH_MODE is token, and there is no token to show {address}; "
            f"{TOKEN_HELP}"
        )
    for _ in range(TRIES):
        why = why_no_answer(found, SECONDS)
        if why is None:
            return
        if why == UNAUTHENTICATED:
            raise InputError(_refused(address))
    raise InputError(
        f"RAY_ADDRESS: no Ray answers at {address} ({why}); is the head up, is this its port (6379 "
        "unless it was started with another), and does a firewall let this machine through?"
    )


def _refused(address: str) -> str:
    shown = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    why = "it was shown another than its own" if shown else "it was shown none"
    return f"RAY_ADDRESS: the cluster at {address} asks for a token, and {why}; {TOKEN_HELP}"
