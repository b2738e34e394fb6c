"""Whether a cluster answers at an address, found out within seconds.

Ray itself goes on trying for minutes where nobody answers, and says "failed to connect" of a wrong
token.
"""

from __future__ import annotations

import os

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
    import grpc
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import canonicalize_bootstrap_address
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    if "://" in address:  # Ray Client has a server, and errors, of its own
        return
    try:
        found = canonicalize_bootstrap_address(address)
    except Exception:  # of several kinds, for a name that nobody knows too
        raise InputError(
            f"RAY_ADDRESS: {address} is no address of a cluster; give HOST:PORT of its head"
        ) from None
    if found is None:
        raise InputError(
            f"RAY_ADDRESS: {address}, but no Ray runs on this machine; give HOST:PORT of a head, "
            "or leave RAY_ADDRESS unset to start Ray here"
        )
    if is_token_auth_enabled() and not _has_token():
        raise InputError(
            f"RAY_ADDRESS: RAY_AUTH_MODE is token, and there is no token to show {address}; "
            f"{TOKEN_HELP}"
        )
    for tries_left in reversed(range(TRIES)):
        channel = init_grpc_channel(found)
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise InputError(_refused(address)) from None
            if not tries_left:
                raise InputError(
                    f"RAY_ADDRESS: no Ray answers at {address} ({error.code().name.lower()}); is "
                    "the head up, is this its port (6379 unless it was started with another), and "
                    "does a firewall let this machine through?"
                ) from None
        else:
            return
        finally:
            channel.close()


def _has_token() -> bool:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        return bool(AuthenticationTokenLoader.instance().has_token())
    except AuthenticationError:
        return False


def _refused(address: str) -> str:
    shown = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    why = "it was shown another than its own" if shown else "it was shown none"
    return f"RAY_ADDRESS: the cluster at {address} asks for a token, and {why}; {TOKEN_HELP}"
