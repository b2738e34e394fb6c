"""How a worker connects to a language model behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.loaders import Loader

if TYPE_CHECKING:
    from raymia.models.endpoints.resolver import Endpoint


@dataclass(frozen=True)
class EndpointLoader(Loader):
    """Connects to an endpoint, whose limits as many workers share as there may be ``actors``."""

    checkpoint: Endpoint
    actors: int

    def load(self) -> Any:
        from raymia.models.endpoints.model import EndpointLM

        endpoint, share = self.checkpoint, self.actors
        client = endpoint.client(share=share)
        endpoint.check(client)
        return EndpointLM(endpoint, client, parallel=max(1, endpoint.parallel_requests // share))
