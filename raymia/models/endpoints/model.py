"""Causal language models behind an OpenAI-compatible completions endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raymia.models.causal.model import TokenAnswer
from raymia.models.causal.reading import PlainReader, Reader, Rendered
from raymia.models.causal.rendering import reader_for
from raymia.models.endpoints.client import EndpointClient, RefusedError
from raymia.models.endpoints.completions import REFUSES_A_TEXT, TOKEN_ID, prompt_tokens, wrong
from raymia.util.reasons import CAME

if TYPE_CHECKING:
    from raymia.models.endpoints.resolver import Endpoint

FLOOR = -9999.0
"""What vLLM writes for a log-probability of minus infinity, which JSON has no number for."""


class EndpointLM:
    """Answers as :class:`raymia.models.causal.model.CausalLM` does, but for the moments."""

    def __init__(self, endpoint: Endpoint, client: EndpointClient, *, parallel: int) -> None:
        self.endpoint = endpoint
        self.client = client
        self.parallel = parallel
        self.reader: Reader = PlainReader(None)
        if endpoint.training is not None:
            self.reader = reader_for(endpoint.tokenizer_source.load(), endpoint.training)

    def prepare(self, texts: Sequence[str]) -> None:
        """Nothing: the server tokenizes, or a text is rendered when it is sent."""

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
        return list(self.client.threads(self.parallel).map(self._answer, texts))

    def _answer(self, text: str) -> TokenAnswer:
        rendered = None if self.endpoint.training is None else self.reader.read([text])[0]
        try:
            if rendered is None:
                return _ask(self.client, self.endpoint, text)
            if rendered.error is not None:
                return _no_answer(rendered.error)
            return _scored(_ask(self.client, self.endpoint, rendered.ids), rendered, self.endpoint)
        except RefusedError as error:
            if error.status not in REFUSES_A_TEXT:
                raise
            return _no_answer(f"refused by the endpoint{CAME}{error}")


def _no_answer(error: str) -> TokenAnswer:
    nothing = np.zeros(0, np.float32)
    return TokenAnswer(nothing.astype(np.int32), nothing, None, None, None, False, error=error)


def _scored(answer: TokenAnswer, rendered: Rendered, endpoint: Endpoint) -> TokenAnswer:
    """What was answered about the tokens that carried a loss.

    Raises
    ------
    RaymiaError
        If the server answered about other tokens than it was sent, as one does that puts a template
        of its own around them.
    """
    sent = np.array(rendered.ids[1:], np.int32)
    same = len(sent) == len(answer.log_prob)
    if not same or (answer.token_ids is not None and not np.array_equal(answer.token_ids, sent)):
        raise wrong(
            endpoint,
            f"{len(answer.log_prob) + 1} tokens for the {len(rendered.ids)} that it was sent; a "
            "server that puts a template of its own around a prompt cannot be audited",
        )
    chosen = np.ones(len(sent), bool) if rendered.scored is None else rendered.scored[1:]
    top1 = None if answer.is_top1 is None else answer.is_top1[chosen]
    return TokenAnswer(sent[chosen], answer.log_prob[chosen], None, None, top1, answer.truncated)


def _ask(client: EndpointClient, endpoint: Endpoint, text: str | list[int]) -> TokenAnswer:
    tokens, log_probs, tops = prompt_tokens(client, endpoint, text)
    # The first token has no context, whatever the server says of it.
    log_prob = np.array(log_probs[1:], np.float32)
    best = np.array([max(top.values()) for top in tops[1:]], np.float32)
    log_prob[log_prob <= FLOOR] = -np.inf
    ids = None
    if endpoint.gives_token_ids:
        try:
            ids = np.array([int(t.removeprefix(TOKEN_ID)) for t in tokens[1:]], np.int32)
        except (ValueError, OverflowError):
            raise wrong(endpoint, "token ids at first, and now other names of tokens") from None
    return TokenAnswer(ids, log_prob, None, None, log_prob >= best, truncated=False)
