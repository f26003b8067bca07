"""Our gateway as several processes before an engine that computes nothing; only the controller is a dummy.

``python -m benchmarks.gateway.several ENGINE_URL PROCESSES`` prints its port.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks.gateway.engine import MODEL
from benchmarks.gateway.server import OneModel, chat_route
from xinference.config import Settings
from xinference.gateway.workers.pool import WorkerPool
from xinference.keys.key import Key
from xinference.keys.table import KeyTable
from xinference.listener import listen
from xinference.routing.table import RoutingTable


class OpenKeys:
    """No key is required."""

    table = KeyTable()

    def used(self, key: Key, now: float) -> None:
        """No key exists, so nothing is recorded."""

    def note_use(self, key_id: str, at: float) -> None:
        """No key exists, so nothing is recorded."""


async def serve(engine_url: str, processes: int) -> None:
    """Serve on a free port until the process is ended."""
    settings = Settings(port=0, gateway_workers=processes)
    router = OneModel(RoutingTable({MODEL: chat_route(engine_url)}))
    workers = WorkerPool(settings, router, OpenKeys(), Path(tempfile.gettempdir()) / "no management")
    with listen(settings, port_is_given=True) as listener:
        await workers.start(listener, router)
        print(listener.getsockname()[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
