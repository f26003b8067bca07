"""Is it up, and is it ours? One look at an engine over loopback HTTP."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

#: How long one look may take, in seconds; a loading engine may accept and not answer.
LOOK_SECONDS = 5.0
_LISTING_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Endpoint:
    """Where an engine answers, and how to know it."""

    port: int
    api_key: str
    health_path: str
    models_path: str
    model_name: str

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:port``, no trailing slash."""
        return f"http://127.0.0.1:{self.port}"


class Look(enum.Enum):
    """What one look saw."""

    SILENT = "no HTTP answer"
    LOADING = "an HTTP answer, but not yet a ready engine of ours"
    HEALTHY = "our engine, ready"


async def look(endpoint: Endpoint, session: aiohttp.ClientSession, seconds: float = LOOK_SECONDS) -> Look:
    """Ask for health, then for the model by name with our key; never raises for what the other side does.

    The second question tells our engine from another program that took the port first: that one knows neither the key
    nor the model.
    """
    seen = Look.SILENT
    try:
        async with asyncio.timeout(seconds):
            url = endpoint.base_url + endpoint.health_path
            async with session.get(url, allow_redirects=False) as answer:
                seen = Look.LOADING
                if answer.status != 200:
                    return seen
            headers = {"Authorization": f"Bearer {endpoint.api_key}"}
            url = endpoint.base_url + endpoint.models_path
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status == 200 and _lists(await _read(answer), endpoint.model_name):
                    return Look.HEALTHY
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    return seen


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for data in answer.content.iter_any():
        body += data
        if len(body) > _LISTING_LIMIT:
            break
    return bytes(body)


def _lists(body: bytes, name: str) -> bool:
    try:
        listing: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return False
    models = listing.get("data") if isinstance(listing, Mapping) else None
    return isinstance(models, list) and any(isinstance(model, Mapping) and model.get("id") == name for model in models)
