"""Our server before an engine that computes nothing: the production gateway and HTTP server with a fixed routing table.

``python -m benchmarks.gateway.server ENGINE_URL`` prints its port. Nothing but the controller is replaced.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

import uvloop

from benchmarks.gateway.engine import MODEL
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.server import http_server
from xinference.listener import listen
from xinference.routing.table import Route, RoutingTable, Target


@dataclass
class OneModel:
    """A router whose only model is always ready."""

    table: RoutingTable

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        raise Problem(Code.MODEL_NOT_FOUND, f"{uid} is not here.")


def chat_route(engine_url: str) -> Route:
    """The route of a model with one replica at `engine_url`; no dialect rewrites what the load asks for."""
    return Route(
        MODEL,
        engine="",
        model_type="LLM",
        model_name=MODEL,
        context_length=None,
        created=0.0,
        targets=(Target("r0", engine_url, "key"),),
        paths=frozenset({"/v1/chat/completions"}),
    )


async def no_management(scope: Scope, receive: Receive, send: Send) -> None:
    """A dummy for the management API, which no load requests."""
    raise NotImplementedError(scope["path"])


async def serve(engine_url: str) -> None:
    """Serve on a free port until the process is ended."""
    settings = Settings(port=0)
    gateway = Gateway(OneModel(RoutingTable({MODEL: chat_route(engine_url)})), settings, no_management)
    with listen(settings, port_is_given=True) as listener:
        gc.freeze()
        print(listener.getsockname()[1], flush=True)
        await http_server(gateway).serve(sockets=[listener])
    await gateway.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
