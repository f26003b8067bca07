"""No network: pip's configuration, and so uv's, is a folder of wheels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.environments.fake_engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "XINFERENCE_"))]:
        monkeypatch.delenv(name)
    fake = FakeEngine(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake.wheels))
    monkeypatch.setattr(os, "sync", lambda: None)  # other people's disk traffic is no part of a test
    return fake
