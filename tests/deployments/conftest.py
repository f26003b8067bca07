"""A server's services around deployments, for tests without a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.deployments.doubles import World, turns
from xinference.config import Settings
from xinference.store.database import Store


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """An indirect parameter is a mapping of further settings."""
    store, further = Store(tmp_path / "x.db"), getattr(request, "param", {})
    made = World(store, Settings(home=tmp_path, restart_backoff_seconds=0.0, restart_limit=1, **further))
    deciding = asyncio.create_task(made.admission.run())
    yield made
    made.load.settle_all()
    made.preparation.release()
    for replica in made.starter.started:
        replica.stops.set()
    async with asyncio.timeout(30):
        for deployment in made.deployments.values():
            await deployment.end("terminate")
    deciding.cancel()
    with suppress(asyncio.CancelledError):
        await deciding
    await turns()
    store.close()
