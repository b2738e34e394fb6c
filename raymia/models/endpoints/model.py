"""Causal language models behind an OpenAI-compatible completions endpoint.

The endpoint is sent a text and returns it with the log-probability of each of its tokens (``echo``
and ``logprobs``). It has no way to give moments of log p over the vocabulary, or weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from raymia.models.causal.model import TokenAnswer
from raymia.models.endpoints.client import EndpointClient, RefusedError
from raymia.spec import EndpointTarget
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest

CHECK_TEXT = "The quick brown fox jumps over the lazy dog."
TOKEN_ID = "token_id:"
FLOOR = -9999.0
"""What vLLM writes for a log-probability of minus infinity, which JSON has no number for."""

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

LACKS = {
    "moments": "an endpoint gives no moments of log p over the vocabulary",
    "weights": "an endpoint gives no access to the model's weights",
    "prefixes": "an endpoint is not asked about texts after a shared prefix",
    "generation": "an endpoint is asked about given texts, and writes none",
    "tokenizer": "an endpoint gives no tokenizer to count a corpus with",
    "token_ids": "this server gives no token ids, by which target and reference are compared token "
    "by token (vLLM's does)",
}


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that was found to answer; small, for actors. The key is no part of it.

    Attributes
    ----------
    way : index into `WAYS` of how it is asked.
    gives_token_ids : whether it names tokens by their ids.
    fingerprint : hash of the address, the served model's name, what ``/models`` says of it, and
        whether token ids are given. It is a name and not content: weights that are changed behind
        the same name are not noticed.
    """

    url: str
    served_model: str
    requests_per_minute: int | None
    parallel_requests: int
    timeout_seconds: float
    retries: int
    way: int = 0
    gives_token_ids: bool = False
    fingerprint: str = ""
    family: ClassVar[str] = "endpoint"

    @property
    def label(self) -> str:
        """What plans and reports call it."""
        return f"{self.served_model} at {self.url}"

    @property
    def lacks(self) -> dict[str, str]:
        """What attacks may need and this cannot give, each with the reason."""
        return {k: v for k, v in LACKS.items() if k != "token_ids" or not self.gives_token_ids}


def resolve_endpoint(spec: EndpointTarget, where: str) -> Endpoint:
    """Ask an endpoint what it serves and one short text, and take its fingerprint.

    Raises
    ------
    InputError
        If it cannot be reached, does not serve the model, or gives no log-probabilities of a
        prompt.
    """
    endpoint = Endpoint(
        url=spec.endpoint,
        served_model=spec.served_model,
        requests_per_minute=spec.requests_per_minute,
        parallel_requests=spec.parallel_requests,
        timeout_seconds=spec.timeout_seconds,
        retries=spec.retries,
    )
    try:
        client = _client(endpoint, share=1)
        described = _described(client, endpoint.served_model)
        endpoint = _with_way(client, endpoint)
    except RaymiaError as error:
        raise InputError(f"{where}: {error}") from None
    return replace(endpoint, fingerprint=_fingerprint(endpoint, described))


def connect(endpoint: Endpoint, *, share: int) -> EndpointLM:
    """Connect a worker, one of ``share``, after a look whether the endpoint is still the one that
    the audit was planned with."""
    client = _client(endpoint, share=share)
    found = _fingerprint(endpoint, _described(client, endpoint.served_model))
    if found != endpoint.fingerprint:
        raise RaymiaError(
            f"{endpoint.label}: the server describes this model otherwise than when the audit was "
            "planned; run the audit again"
        )
    return EndpointLM(endpoint, client, parallel=max(1, endpoint.parallel_requests // share))


class EndpointLM:
    """Answers as :class:`raymia.models.causal.model.CausalLM` does, but for the moments."""

    def __init__(self, endpoint: Endpoint, client: EndpointClient, *, parallel: int) -> None:
        self.endpoint = endpoint
        self.client = client
        self.parallel = parallel

    def answer(self, texts: Sequence[str], *, moments: bool) -> list[TokenAnswer]:
        """Ask for the log-probability of every token of every text, in input order.

        A text that the server refuses, as one that is longer than the model's context, is answered
        with its reason.

        Parameters
        ----------
        moments : asks a model at hand for the moments of log p; here they are None all the same.

        Raises
        ------
        RaymiaError
            If the endpoint cannot be reached, or answers otherwise than the protocol says.
        """
        del moments
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._answer, texts))

    def _answer(self, text: str) -> TokenAnswer:
        try:
            return _ask(self.client, self.endpoint, text)
        except RefusedError as error:
            if error.status not in REFUSES_A_TEXT:
                raise
            nothing = np.zeros(0, np.float32)
            return TokenAnswer(nothing.astype(np.int32), nothing, None, None, None, False,
                               error=f"refused by the endpoint: {error}")  # fmt: skip


def _client(endpoint: Endpoint, *, share: int) -> EndpointClient:
    limit = endpoint.requests_per_minute
    return EndpointClient(
        endpoint.url,
        requests_per_minute=None if limit is None else limit / share,
        timeout_seconds=endpoint.timeout_seconds,
        retries=endpoint.retries,
    )


def _described(client: EndpointClient, model: str) -> dict[str, Any]:
    """What ``/models`` says of a model; nothing where a server has no such page."""
    try:
        listed = client.get("/models")
    except RefusedError as error:
        if error.status in (404, 405, 501):
            return {}
        raise
    try:
        models = {entry["id"]: entry for entry in listed["data"]}
    except (KeyError, TypeError):
        raise RaymiaError(
            f"{client.url}/models: expected a list of models under `data`, got {str(listed)[:200]}"
        ) from None
    if model not in models:
        raise RaymiaError(
            f"{client.url} serves no model {model!r}; it serves: {', '.join(models) or 'none'}"
        )
    # vLLM's other fields, as the time of creation, are new with every request.
    lasting = ("id", "root", "parent", "owned_by", "max_model_len")
    return {name: models[model].get(name) for name in lasting}


def _fingerprint(endpoint: Endpoint, described: Mapping[str, Any]) -> str:
    return digest(
        {
            "endpoint": endpoint.url,
            "served_model": endpoint.served_model,
            "token_ids": endpoint.gives_token_ids,
            "described": dict(described),
        }
    )


def _with_way(client: EndpointClient, endpoint: Endpoint) -> Endpoint:
    """Find the first way of `WAYS` that gives a prompt's log-probabilities."""
    problem: RaymiaError | None = None
    for way in range(len(WAYS)):
        asked = replace(endpoint, way=way)
        try:
            tokens = _prompt_tokens(client, asked, CHECK_TEXT)[0]
            if len(tokens) < 2:
                raise _wrong(endpoint, f"{len(tokens)} tokens for {CHECK_TEXT!r}")
            return replace(asked, gives_token_ids=all(t.startswith(TOKEN_ID) for t in tokens))
        except RefusedError as error:
            if error.status not in REFUSES_A_TEXT:
                raise
            problem = problem or error
        except WrongAnswerError as error:
            problem = error
    raise problem or RaymiaError(f"{endpoint.label}: cannot be asked")


class WrongAnswerError(RaymiaError):
    """An answer that is not what the protocol says."""


def _ask(client: EndpointClient, endpoint: Endpoint, text: str) -> TokenAnswer:
    tokens, log_probs, tops = _prompt_tokens(client, endpoint, text)
    # The first token has no context, whatever the server says of it.
    log_prob = np.array(log_probs[1:], np.float32)
    best = np.array([max(top.values()) for top in tops[1:]], np.float32)
    log_prob[log_prob <= FLOOR] = -np.inf
    ids = None
    if endpoint.gives_token_ids:
        try:
            ids = np.array([int(t.removeprefix(TOKEN_ID)) for t in tokens[1:]], np.int32)
        except ValueError:
            raise _wrong(endpoint, "token ids at first, and now other names of tokens") from None
    return TokenAnswer(ids, log_prob, None, None, log_prob >= best, truncated=False)


def _prompt_tokens(
    client: EndpointClient, endpoint: Endpoint, text: str
) -> tuple[list[str], list[float], list[dict[str, float]]]:
    """Names, log-probabilities and likeliest tokens at each position of a text."""
    way = WAYS[endpoint.way]
    body = {"model": endpoint.served_model, "prompt": text, "echo": True, "logprobs": 1,
            "temperature": 0, **way}  # fmt: skip
    answer = client.post("/completions", body)
    try:
        choice, model = answer["choices"][0], answer.get("model", endpoint.served_model)
        given = choice["logprobs"]
        count = (answer.get("usage") or {}).get("prompt_tokens")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _wrong(endpoint, f"no completion in {str(answer)[:200]}") from None
    if model != endpoint.served_model:
        raise _wrong(endpoint, f"the answer of another model, {model!r}")
    if count is None and way["max_tokens"] > 0:
        raise _wrong(endpoint, "no `usage`, so that prompt and completion cannot be told apart")
    with suppress(KeyError, TypeError):
        tokens, log_probs, tops = (
            given[name][:count] for name in ("tokens", "token_logprobs", "top_logprobs")
        )
        whole = len(tokens) == len(log_probs) == len(tops) == (count or len(tokens))
        if whole and all(x is not None for x in log_probs[1:]) and all(tops[1:]):
            return tokens, log_probs, tops
    raise _wrong(endpoint, "no log-probability for each token of the prompt (`logprobs`)")


def _wrong(endpoint: Endpoint, got: str) -> WrongAnswerError:
    return WrongAnswerError(
        f"{endpoint.label}: expected the prompt with the log-probability of each of its tokens, "
        f"got {got}. raymia needs a completions endpoint that supports echo with logprobs, as "
        "vLLM's does"
    )
