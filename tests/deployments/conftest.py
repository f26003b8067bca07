"""A server's services around deployments, for tests without a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deployments.doubles import World, running_world


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """An indirect parameter is a mapping of further settings."""
    async with running_world(tmp_path, **getattr(request, "param", {})) as made:
        yield made
