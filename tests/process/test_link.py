"""The start of a keeper that ends before it answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xinference.errors import Problem
from xinference.process.link import KeeperProcess


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (1, "The engine's keeper ended with status 1."),
        (-15, "The engine's keeper was killed by SIGTERM."),
        (-9, "The engine's keeper was killed by SIGKILL."),
        (-63, "The engine's keeper was killed by signal 63."),
    ],
)
async def test_a_keeper_that_ends_before_it_answers_is_reported_with_its_signal(
    tmp_path: Path, status: int, text: str
) -> None:
    with tempfile.TemporaryFile() as stderr:
        keeper = KeeperProcess(cast(Any, SimpleNamespace(poll=lambda: status)), stderr)
        with pytest.raises(Problem) as failed:
            await keeper.connect(tmp_path / "socket", 1.0)
    assert failed.value.cause == text and failed.value.code == "keeper_failed"
