"""Endpoints: what a server says of the model that it serves.

It has no way to give moments of log p over the vocabulary, or weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raymia.models.causal.facts import tokenizer_hash
from raymia.models.causal.training import NO_WORDS, Training
from raymia.models.checkpoint import AnyCheckpoint, Capabilities
from raymia.models.endpoints.client import EndpointClient, RefusedError
from raymia.models.endpoints.completions import (
    REFUSES_A_TEXT,
    TOKEN_ID,
    WAYS,
    WrongAnswerError,
    prompt_tokens,
    wrong,
)
from raymia.models.endpoints.loader import EndpointLoader
from raymia.models.source import Reads, locate
from raymia.models.tokenizers import TokenizerSource
from raymia.spec import EndpointTarget, PoolSpec
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest
from raymia.util.once import Once
from raymia.util.stated import TEXT, WHOLE, stated, stated_if

CHECK_TEXT = "The quick brown fox jumps over the lazy dog."

NO_WEIGHTS = "an endpoint gives no access to the model's weights"
LACKS = {
    "moments": "an endpoint gives no moments of log p over the vocabulary",
    "weights": NO_WEIGHTS,
    "gradients": NO_WEIGHTS,
    "prefixes": "an endpoint is not asked about texts after a shared prefix",
    "generation": "an endpoint is asked about given texts, and writes none",
    "tokenizer": "an endpoint gives no tokenizer to count a corpus with",
}
NO_IDS = (
    "this server gives no token ids, by which target and reference are compared token by token "
    "(vLLM's does)"
)


@dataclass(frozen=True)
class Endpoint(AnyCheckpoint):
    """An endpoint that was found to answer; small, for actors. The key is no part of it.

    Attributes
    ----------
    way : index into `WAYS` of how it is asked.
    gives_token_ids : whether it names tokens by their ids.
    context : tokens of the longest text that it takes; None where it does not say.
    tokenizer, tokenizer_hash : folder of the served model's tokenizer, and hash of its content,
        where records are sent as tokens.
    training : how records are read; None sends texts.
    description : what ``/models`` says of it.
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
    context: int | None = None
    tokenizer: str | None = None
    tokenizer_hash: str = ""
    training: Training | None = None
    description: tuple[tuple[str, Any], ...] = ()

    family = "endpoint"
    computes = False

    @property
    def answers_like(self) -> str:
        return "causal"

    @property
    def tokenizer_source(self) -> TokenizerSource:
        assert self.tokenizer is not None, "records are sent as tokens where there is a tokenizer"
        return TokenizerSource(self.tokenizer)

    @property
    def tokenizer_content(self) -> str:
        """Hash of all that the tokenizer can depend on."""
        return self.tokenizer_hash

    @property
    def label(self) -> str:
        return f"{self.served_model} at {self.url}"

    @property
    def capabilities(self) -> Capabilities:
        lacks = dict(LACKS) if self.gives_token_ids else {**LACKS, "token_ids": NO_IDS}
        if self.training is not None and self.training.format == "tokens":
            lacks["words"] = NO_WORDS
        return Capabilities(self.family, frozenset({"token_ids", "words"}) - {*lacks}, lacks)

    def loader(self, pool: PoolSpec) -> EndpointLoader:
        return EndpointLoader(self, pool.max_actors or pool.actors)

    def pool(self, given: PoolSpec) -> PoolSpec:
        """With no more workers than requests may be under way: each has one at least."""
        most = self.parallel_requests
        actors, max_actors = min(given.actors, most), given.max_actors
        grows = None if max_actors is None else min(max_actors, most)
        update = {"actors": actors, "max_actors": grows}
        return super().pool(given).model_copy(update=update)

    def describe(self) -> str:
        context = "" if self.context is None else f", context {self.context:,}"
        return f"endpoint{context}{'' if self.gives_token_ids else ', no token ids'}"

    def client(self, *, share: int) -> EndpointClient:
        """A client of one worker of ``share`` that keep the limits together."""
        limit = self.requests_per_minute
        return EndpointClient(
            self.url,
            requests_per_minute=None if limit is None else limit / share,
            timeout_seconds=self.timeout_seconds,
            retries=self.retries,
        )

    def described(self, description: Mapping[str, Any]) -> Endpoint:
        """The same as the server describes it."""
        # Named only where tokens are sent: evidence on texts keeps its key.
        read = {}
        if self.training is not None:
            read = {"training": self.training.key_parts(), "tokenizer": self.tokenizer_hash}
        fingerprint = digest(
            {
                **read,
                "endpoint": self.url,
                "served_model": self.served_model,
                "token_ids": self.gives_token_ids,
                "described": dict(description),
            }
        )
        context = description.get("max_model_len")
        said = tuple(sorted(description.items()))
        return replace(self, fingerprint=fingerprint, context=context, description=said)

    def read_as(self, training: Training | None, _: Once | None = None) -> Endpoint:
        """The same for records that are read as a training did."""
        return replace(self, training=training).described(dict(self.description))

    def check(self, client: EndpointClient) -> None:
        """Refuse a server that is not the one that the audit was planned with.

        Raises
        ------
        RaymiaError
            If it describes the model otherwise, or cannot be reached.
        """
        if self.described(description_of(client, self.served_model)) != self:
            raise RaymiaError(
                f"{self.label}: the server describes this model otherwise than when the audit was "
                "planned; run the audit again"
            )


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
    if spec.tokenizer is not None:
        once = Once()
        key = f"{where.removesuffix('.endpoint')}.tokenizer"
        folder = locate(spec.tokenizer, None, Reads("none"), where=key)
        content = tokenizer_hash(folder, None, once)
        endpoint = replace(endpoint, tokenizer=str(folder), tokenizer_hash=content)
    try:
        client = endpoint.client(share=1)
        description = description_of(client, endpoint.served_model)
        return _with_way(client, endpoint).described(description)
    except RaymiaError as error:
        raise InputError(f"{where}: {error}") from None


def description_of(client: EndpointClient, model: str) -> dict[str, Any]:
    """What ``/models`` says of a model; nothing where a server has no such page."""
    try:
        listed = client.get("/models")
    except RefusedError as error:
        if error.status in (404, 405, 501):
            return {}
        raise
    place = f"{client.url}/models"
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise RaymiaError(
            f"{place}: expected a list of models under `data`, got {str(listed)[:200]}"
        )
    models = {stated(entry, "id", TEXT, place): entry for entry in entries}
    if model not in models:
        raise RaymiaError(
            f"{client.url} serves no model {model!r}; it serves: {', '.join(models) or 'none'}"
        )
    # vLLM's other fields, as the time of creation, are new with every request.
    lasting = {"id": TEXT, "root": TEXT, "parent": TEXT, "owned_by": TEXT, "max_model_len": WHOLE}
    return {name: stated_if(models[model], name, kind, place) for name, kind in lasting.items()}


def _with_way(client: EndpointClient, endpoint: Endpoint) -> Endpoint:
    """Find the first way of `WAYS` that gives a prompt's log-probabilities."""
    problem: RaymiaError | None = None
    for way in range(len(WAYS)):
        asked = replace(endpoint, way=way)
        try:
            tokens = prompt_tokens(client, asked, CHECK_TEXT)[0]
            if len(tokens) < 2:
                raise wrong(endpoint, f"{len(tokens)} tokens for {CHECK_TEXT!r}")
            return replace(asked, gives_token_ids=all(t.startswith(TOKEN_ID) for t in tokens))
        except RefusedError as error:
            if error.status not in REFUSES_A_TEXT:
                raise
            problem = problem or error
        except WrongAnswerError as error:
            problem = error
    raise problem or RaymiaError(f"{endpoint.label}: cannot be asked")
