"""What a completions endpoint is asked, and how its answer is read.

The endpoint is sent a text and returns it with the log-probability of each of its tokens (``echo``
and ``logprobs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from raymia.models.endpoints.client import EndpointClient
from raymia.util.errors import RaymiaError

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
    with suppress(KeyError, TypeError):
        tokens, log_probs, tops = (
            given[name][:count] for name in ("tokens", "token_logprobs", "top_logprobs")
        )
        whole = len(tokens) == len(log_probs) == len(tops) == (count or len(tokens))
        if whole and all(x is not None for x in log_probs[1:]) and all(tops[1:]):
            return tokens, log_probs, tops
    raise wrong(endpoint, "no log-probability for each token of the prompt (`logprobs`)")


def wrong(endpoint: Endpoint, got: str) -> WrongAnswerError:
    return WrongAnswerError(
        f"{endpoint.label}: expected the prompt with the log-probability of each of its tokens, "
        f"got {got}. raymia needs a completions endpoint that supports echo with logprobs, as "
        "vLLM's does"
    )
