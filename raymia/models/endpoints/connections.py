"""Connections that can be ended while a thread still waits for what they bring."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager


class EndedAtWill(HTTPAdapter):
    """Remembers the sockets that it opens, so that all of them can be ended."""

    def __init__(self) -> None:
        self._opened: WeakSet[socket.socket] = WeakSet()
        super().__init__()

    def end(self) -> None:
        """End all connections: whoever reads from one is told that nothing more comes."""
        for opened in [*self._opened]:
            with suppress(OSError):  # it is ended already
                opened.shutdown(socket.SHUT_RDWR)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            scheme: self._watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }

    def _watched(self, pool: type[HTTPConnectionPool]) -> Any:
        kind: Any = pool.ConnectionCls

        def connect(connection: Any) -> None:
            kind.connect(connection)
            self._opened.add(connection.sock)  # which the connection lets go of before its answer

        watched = type(kind.__name__, (kind,), {"connect": connect})
        return type(pool.__name__, (pool,), {"ConnectionCls": watched})
