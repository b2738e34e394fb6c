"""A server that writes on from prompts, as vLLM does: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.models.endpoints.client import EndpointClient
from raymia.models.endpoints.completions import TOKEN_ID, WrongAnswerError
from raymia.models.endpoints.resolver import description_of
from raymia.models.token_ids import up_to_end
from raymia.util.stated import NUMBER

MAX_SEED = 2**31
"""Servers take seeds below this one."""
NEUTRAL = {
    "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # fmt: skip
"""Said with every request: what is left out a server takes from the model's own
`generation_config.json`, as vLLM does, and draws from another distribution."""
ALL_TOKENS = -1
"""As `top_k`, to every version of vLLM."""
OF_WRITTEN_BY = (
    "Parts that were written are stored: see that the server is up and run it again to go on; "
    "`retries`, `timeout_seconds` and `requests_per_minute` are keys of `written_by`"
)

Written = tuple[list[int], list[float]]
"""New tokens, up to where the text ended, and the log-probability of each."""


@dataclass(frozen=True)
class Server:
    """Where a model is served that is to write.

    Attributes
    ----------
    served_model : name that the server knows it by.
    requests_per_minute : of one client.
    """

    url: str
    served_model: str
    requests_per_minute: float | None
    timeout_seconds: float
    retries: int

    @property
    def label(self) -> str:
        return f"{self.served_model} at {self.url}"

    def key_parts(self) -> dict[str, str]:
        """What texts are a function of: names, as the weights behind them are not to be seen."""
        return {"endpoint": self.url, "served_model": self.served_model}

    def client(self) -> EndpointClient:
        """A client, after a look at what the server serves.

        Raises
        ------
        RaymiaError
            If it cannot be reached, or serves no such model.
        """
        client = EndpointClient(
            self.url,
            requests_per_minute=self.requests_per_minute,
            timeout_seconds=self.timeout_seconds,
            retries=self.retries,
            advice=OF_WRITTEN_BY,
        )
        description_of(client, self.served_model)
        return client


def written_on(
    server: Server,
    client: EndpointClient,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    whole: int,
    temperature: float,
    top_k: int | None,
    ends: Collection[int],
    with_end: bool = False,
) -> list[Written]:
    """What a server writes after prompts of token ids, all of them asked at the same time.

    Parameters
    ----------
    whole : tokens of a prompt and its continuation together, at most.
    ends : tokens that end a text.
    with_end : whether the token that ended a text stands at its end.

    Raises
    ------
    RaymiaError
        If the server cannot be reached, answers otherwise than with tokens by their ids, or cuts a
        text before it is as long as it may be.
    """

    def ask(prompt: Sequence[int], seed: int) -> Written:
        room = whole - len(prompt)
        body = {
            "model": server.served_model, "prompt": list(prompt), "temperature": temperature,
            "max_tokens": room, "seed": seed % MAX_SEED, "logprobs": 1,
            "return_tokens_as_token_ids": True, "stop_token_ids": sorted(ends),
            "top_k": ALL_TOKENS if top_k is None else top_k, **NEUTRAL,
        }  # fmt: skip
        ids, log_probs = _tokens(server, client.post("/completions", body), room)
        stop = up_to_end(ids, ends) + with_end
        return ids[:stop], log_probs[:stop]

    try:
        return list(client.threads(max(1, len(prompts))).map(ask, prompts, seeds))
    except BaseException:
        client.end()  # or the others go on asking
        raise


NEEDED = (
    "raymia needs a server of completions that is given token ids and returns them, as vLLM does"
)


OWN_LIMIT = "The server has a limit of its own; start it without"


def _tokens(server: Server, answer: Any, most: int) -> Written:
    try:
        choice, model = answer["choices"][0], answer.get("model", server.served_model)
        names, log_probs = choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"]
        ids = [int(name.removeprefix(TOKEN_ID)) for name in names if name.startswith(TOKEN_ID)]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _wrong(server, f"no tokens by their ids in {str(answer)[:200]}") from None
    if model != server.served_model:
        raise _wrong(server, f"the answer of another model, {model!r}")
    if (
        len(ids) != len(names)
        or len(ids) != len(log_probs)
        or not all(map(NUMBER.holds, log_probs))
    ):
        raise _wrong(server, f"{len(ids)} ids of {len(names)} tokens, or not all probabilities")
    if len(ids) > most:
        raise _wrong(server, f"{len(ids)} tokens, where {most} were asked for")
    ended = choice.get("finish_reason")
    if ended not in ("stop", "length"):
        raise _wrong(server, f"a text that ended by {ended!r}")
    if ended == "length" and len(ids) < most:
        raise _wrong(server, f"a text that it cut after {len(ids)} of {most} tokens", OWN_LIMIT)
    return ids, [float(one) for one in log_probs]


def _wrong(server: Server, got: str, advice: str = NEEDED) -> WrongAnswerError:
    return WrongAnswerError(f"{server.label}: expected what it writes, got {got}. {advice}")
