"""The management API in process, over a controller with an empty home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from tests.api.application import application
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring
from xinference.store.database import Store


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    """The management API of a server that runs nothing."""
    settings = Settings(home=tmp_path / "empty home", offline=True)
    store = Store(settings.home / "x.db")
    controller = Controller(settings, store)
    yield application(controller, settings, Keyring(store))
    await controller.close("stop")
    store.close()


@pytest.fixture
async def empty(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that runs nothing."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
