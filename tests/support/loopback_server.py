"""A server of asyncio's on loopback, in the process of the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve_connections(handle: Handle, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Call `handle` with each connection while the block runs; gives the port.

    Only the listener is closed at the end. `async with` of asyncio's own server would also wait until each connection
    is closed, but only since Python 3.12.1, and a connection that outlives its listener is what some tests are about.
    """
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
