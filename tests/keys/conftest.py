from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from xinference.keys.keyring import Keyring
from xinference.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "x.db")
    yield store
    store.close()


@pytest.fixture
def keys(store: Store) -> Keyring:
    return Keyring(store)
