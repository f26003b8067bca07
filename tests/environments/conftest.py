from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments.fake_engine import FakeEngine, alone


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return alone(tmp_path, monkeypatch)
