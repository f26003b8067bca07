"""A gateway before a stand-in of one engine, which records what reaches it and answers in the form of its paths."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.record import Record, Recorded
from tests.fakes.running import start_fake_engine
from tests.gateway.harness import HandMadeRouter, Served, gateway_of, listening, route, target
from xinference.gateway.routes import DATA_PATHS
from xinference.keys.table import Keys


@dataclass(frozen=True)
class Recording:
    """The gateway, and the record of its engine."""

    served: Served
    record: Record

    async def sent(self, path: str, body: Any, **options: Any) -> Recorded:
        """What reaches the engine of a request that is accepted."""
        status, answer, _ = await self.served.post(path, body, **options)
        assert status == 200, answer
        (recorded,) = self.record.take()
        return recorded

    async def refused(self, path: str, body: Any) -> dict[str, Any]:
        """The error of a request that is refused before anything reaches the engine."""
        status, answer, _ = await self.served.post(path, body)
        assert status == 400, answer
        assert self.record.take() == []
        error: dict[str, Any] = answer["error"]
        return error


@contextlib.asynccontextmanager
async def recording_gateway(engine: str, folder: Path, keys: Keys | None = None) -> AsyncIterator[Recording]:
    """A gateway with the model ``m``, which is said to run on `engine`, by its display name."""
    record = Record(folder / "requests.jsonl")
    paths = frozenset(path.upstream for path in DATA_PATHS.values())
    router = HandMadeRouter()
    async with (
        start_fake_engine(record=str(record.file)) as fake,
        gateway_of(router, keys=keys) as gateway,
        listening(gateway) as (_, _, url),
        aiohttp.ClientSession() as http,
    ):
        router.publish(route(target(fake), engine=engine, paths=paths))
        yield Recording(Served(url, http, gateway), record)
