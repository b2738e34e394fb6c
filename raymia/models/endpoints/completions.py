"""What a completions endpoint is asked, and how its answer is read.

The endpoint is sent a text and returns it with the log-probability of each of its tokens (``echo``
and ``logprobs``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raymia.models.endpoints.client import EndpointClient
from raymia.util.errors import RaymiaError
from raymia.util.stated import COUNT, NUMBER

if TYPE_CHECKING:
    from raymia.models.endpoints.resolver import Endpoint

TOKEN_ID = "token_id:"

WAYS: tuple[Mapping[str, Any], ...] = (
    {"max_tokens": 0, "return_tokens_as_token_ids": True},
    {"max_tokens": 0},
    {"max_tokens": 1},
)
"""Ways to ask for a prompt's log-probabilities, the best first. Only vLLM and its like name tokens
by their ids, some servers refuse keys they do not know, and some want to write at least one token,
which is then dropped."""

ROUNDED = 1e-3
"""A log-probability above this is none; a sum of rounded numbers may be a little above 0."""

REFUSES_A_TEXT = {400, 413, 422}
"""Statuses that are about one text, as that it is longer than the model's context."""


class WrongAnswerError(RaymiaError):
    """An answer that is not what the protocol says."""


def prompt_tokens(
    client: EndpointClient, endpoint: Endpoint, text: str | list[int]
) -> tuple[list[str], list[float], list[dict[str, float]]]:
    """Names, log-probabilities and likeliest tokens at each position of a text, or of tokens."""
    way = WAYS[endpoint.way]
    body = {"model": endpoint.served_model, "prompt": text, "echo": True, "logprobs": 1,
            "temperature": 0, **way}  # fmt: skip
    answer = client.post("/completions", body)
    try:
        choice, model = answer["choices"][0], answer.get("model", endpoint.served_model)
        given = choice["logprobs"]
        count = (answer.get("usage") or {}).get("prompt_tokens")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise wrong(endpoint, f"no completion in {str(answer)[:200]}") from None
    if model != endpoint.served_model:
        raise wrong(endpoint, f"the answer of another model, {model!r}")
    if count is None and way["max_tokens"] > 0:
        raise wrong(endpoint, "no `usage`, so that prompt and completion cannot be told apart")
    parts = _parts_of(given, count)
    if parts is None:
        raise wrong(endpoint, "no log-probability for each token of the prompt (`logprobs`)")
    if (largest := max(parts[1][1:], default=0)) > ROUNDED:
        raise wrong(endpoint, f"a log-probability above 0 ({largest:g})")
    return parts


def _parts_of(
    given: Any, count: Any
) -> tuple[list[str], list[float], list[dict[str, float]]] | None:
    """The tokens of a prompt, their log-probabilities and the likeliest tokens there, of which the
    first token may have none; None where a server gives anything else.

    Parameters
    ----------
    count : of the tokens of the prompt, as the server says; None where it does not.
    """
    names = ("tokens", "token_logprobs", "top_logprobs")
    lists: list[Any] = [given.get(name) for name in names] if isinstance(given, dict) else []
    if not lists or not all(isinstance(one, list) for one in lists):
        return None
    if count is not None and not COUNT.holds(count):
        return None
    tokens, log_probs, tops = (one[:count] for one in lists)
    is_whole = (
        len(tokens) == len(log_probs) == len(tops) == (len(tokens) if count is None else count)
        and all(isinstance(token, str) for token in tokens)
        and all(map(_is_log_prob, log_probs[1:]))
        and all(map(_are_log_probs, tops[1:]))
    )
    return (tokens, log_probs, tops) if is_whole else None


def _is_log_prob(value: Any) -> bool:
    return NUMBER.holds(value) or value == -math.inf


def _are_log_probs(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_log_prob, value.values()))


def wrong(endpoint: Endpoint, got: str) -> WrongAnswerError:
    return WrongAnswerError(
        f"{endpoint.label}: expected the prompt with the log-probability of each of its tokens, "
        f"got {got}. raymia needs a completions endpoint that supports echo with logprobs, as "
        "vLLM's does"
    )
