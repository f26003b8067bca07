"""One of several gateway processes on one port; the server starts it and tells it what to do.

python -m xinference.gateway.workers.worker LINK_FD LISTENER_FD
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import assert_never

import uvloop

from xinference.config import Settings
from xinference.gateway.app import Gateway
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.server import Server, http_server
from xinference.gateway.workers.ipc import (
    FROM_SERVER,
    Abort,
    Aborted,
    Begin,
    Forget,
    Granted,
    Link,
    Ready,
    Refused,
    Report,
    Reported,
    Seen,
    Serve,
    Stop,
    Table,
    ToWorker,
)
from xinference.gateway.workers.management_proxy import Management
from xinference.gateway.workers.proxies import Remote
from xinference.routing.abortable_requests import AbortableRequests

log = logging.getLogger(__name__)


class Worker:
    """The process' gateway, and what the server has it do."""

    def __init__(self, link: Link[ToWorker], begin: Begin) -> None:
        settings = Settings(**begin.settings | {"home": Path(begin.settings["home"])})
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        self._link = link
        self._remote = Remote(link)
        self._running = AbortableRequests()
        self._management = Management(begin.management, settings.max_body_bytes)
        self._gateway = Gateway(
            self._remote,
            settings,
            self._management,
            self._remote.keys,
            self._running,
            quota=self._remote,
            balancer=self._remote.balancer,
        )
        self.server: Server = http_server(self)
        self.may_serve = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The server has the counts of all processes.
        app = self._management if scope.get("path") == "/metrics" else self._gateway
        await app(scope, receive, send)

    async def close(self) -> None:
        """Close the connections."""
        await self._gateway.close()
        await self._management.close()

    def obey(self, message: ToWorker) -> None:
        """Do what the server says."""
        match message:
            case Table():
                self._remote.use(message)
                self._link.send(Seen(message.version))
            case Ready() | Granted() | Refused():
                self._remote.answered(message)
            case Report():
                self._link.send(self._report(message.number))
            case Abort():
                found = self._running.abort(message.model, message.request_id)
                self._link.send(Aborted(message.number, found))
            case Forget():
                self._gateway.balancer.forget(message.replica_id)
            case Serve():
                self.may_serve.set()
            case Stop():
                self.server.stop()
                self.may_serve.set()
            case Begin():
                raise ValueError("A process begins once.")
            case _:
                assert_never(message)

    def _report(self, number: int) -> Reported:
        balancer = self._gateway.balancer
        counted = self._gateway.metrics.take()
        return Reported(number, balancer.counts(), balancer.ends(), self._remote.keys.take_used(), counted)


async def work(link_end: socket.socket, listener: socket.socket) -> None:
    """Serve until told to stop."""
    link = await Link.open(link_end, FROM_SERVER)
    messages = link.messages()
    begin = await anext(messages)
    assert isinstance(begin, Begin)
    worker = Worker(link, begin)

    async def obey() -> None:
        try:
            async for message in messages:
                worker.obey(message)
        except Exception:  # a bug of ours: with a table that is never renewed it must not go on
            log.exception("what the server said could not be done")
        # Else the server is dead. Whoever starts the next one wants the port, and the engines wait for it.
        os._exit(1)

    obeying = asyncio.create_task(obey())
    await worker.may_serve.wait()
    gc.freeze()
    await worker.server.serve(sockets=[listener])
    await worker.close()
    obeying.cancel()


def main() -> None:
    """Entry point of ``python -m xinference.gateway.workers.worker``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link, listener = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    uvloop.run(work(link, listener))


if __name__ == "__main__":
    main()
