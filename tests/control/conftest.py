"""A controller over an empty home, without a server around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.control.controller import Controller
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
