"""Probes an engine over loopback HTTP: whether it answers, and whether it is the expected engine."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import aiohttp

#: Timeout of one probe, in seconds; a loading engine may accept and not answer.
PROBE_SECONDS = 5.0
_LISTING_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine, and the facts that identify it."""

    port: int
    api_key: str
    health_path: str
    models_path: str
    model_name: str
    answers: bool = True
    """False: the process answers no requests, and is ready as soon as it runs."""

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:port``, no trailing slash."""
        return f"http://127.0.0.1:{self.port}"


class ProbeResult(enum.Enum):
    """The result of one probe."""

    SILENT = "no HTTP answer"
    LOADING = "an HTTP answer, but not from the expected engine, or not ready"
    HEALTHY = "the expected engine, ready"


async def probe(endpoint: Endpoint, session: aiohttp.ClientSession, seconds: float = PROBE_SECONDS) -> ProbeResult:
    """Request health, then the list of models with the engine's key. Failures of the other side raise no exception.

    The second request distinguishes the engine from another program that took the port first: that program has
    neither the key nor the model.
    """
    if not endpoint.answers:
        return ProbeResult.HEALTHY
    import aiohttp  # here, because the start of the server does not need it: see `probe_session`

    result = ProbeResult.SILENT
    try:
        async with asyncio.timeout(seconds):
            url = endpoint.base_url + endpoint.health_path
            async with session.get(url, allow_redirects=False) as answer:
                result = ProbeResult.LOADING
                if answer.status != 200:
                    return result
            headers = {"Authorization": f"Bearer {endpoint.api_key}"}
            url = endpoint.base_url + endpoint.models_path
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status == 200 and _lists(await _read(answer), endpoint.model_name):
                    return ProbeResult.HEALTHY
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    return result


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
