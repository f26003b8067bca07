"""HTTP sessions for probes of engines. The first one imports the client library in a thread while the engine starts."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


@asynccontextmanager
async def probe_session(headers: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a time limit; the probes have their own.

    The import takes a quarter of a second. A server that only starts does not need it.
    """
    if "aiohttp" not in sys.modules:
        await asyncio.to_thread(importlib.import_module, "aiohttp")
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), headers=headers) as session:
        yield session
