"""A controller over an empty home without a server, and its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.control.parts import Parts
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.deployments.deployment import Deployment
from xinference.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "home" / "x.db")
    yield store
    store.close()


@pytest.fixture
async def controller(tmp_path: Path, store: Store) -> AsyncIterator[Controller]:
    controller = Controller(Settings(home=tmp_path / "home", offline=True), store)
    yield controller
    await controller.close("stop")


@pytest.fixture
async def parts(tmp_path: Path, store: Store) -> Parts:
    """The parts of a controller, each to be used alone."""
    return Parts(store, Settings(home=tmp_path / "home", offline=True))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Deployment]:
    """The deployments that begin from now on; none of them does anything, and each ends at once."""
    begun: list[Deployment] = []

    def begin(deployment: Deployment) -> asyncio.Future[int]:
        begun.append(deployment)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(0)
        return done

    async def end(deployment: Deployment, how: str) -> None:
        return None

    monkeypatch.setattr(Deployment, "begin", begin)
    monkeypatch.setattr(Deployment, "end", end)
    return begun
