"""The data port of a supervisor: sends the weights of its machine to workers, and accepts no requests to models."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Container
from pathlib import Path

from xinference.gateway.front_door import FrontDoor, front_door_server
from xinference.gateway.http.engine_pool import EnginePool
from xinference.gateway.weight_files import WeightFiles
from xinference.tls_listener import bind

log = logging.getLogger(__name__)


class WeightDoor:
    """Open from `open` to `close`.

    Args:
        find: see `WeightFiles`.
        context, revoked: see `front_door_server`.
    """

    def __init__(
        self,
        find: Callable[[str, str], Path | None],
        context: ssl.SSLContext,
        revoked: Container[tuple[str, int]],
    ) -> None:
        self._pool = EnginePool()
        door = FrontDoor(dict, self._pool, 0, WeightFiles(find))
        self._server = front_door_server(door, context, "", 0, revoked)
        self._serving: asyncio.Task[None] | None = None

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port, or 0: it is in use, as on a machine with a worker."""
        try:
            listener = bind(host, port)
            listener.listen()  # from now on, and not only once the task runs
        except OSError as error:
            log.warning("workers cannot copy weights from this machine: port %d: %s", port, error.strerror)
            return 0
        # Not `serve`: the signals are those of the server for requests.
        self._serving = asyncio.create_task(self._server._serve([listener]), name="weights for workers")
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """End the copies that are under way, and listen no more."""
        if self._serving is not None:
            self._server.stop()
            self._server.hurry()
            await self._serving
        await self._pool.close()
