"""Following the output of a deployment ends with the deployment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from xinference.api.routes import models
from xinference.control.stop_notice import StopNotice


async def test_following_ends_with_the_deployment_after_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LOG_POLL_SECONDS", 0.0)
    first, second = tmp_path / "r1.log", tmp_path / "r2.log"
    first.write_text("old\n")
    paths, present = [first], [True]

    def current() -> list[Path]:
        return list(paths)

    received = ""
    async with asyncio.timeout(30):
        async for part in models._follow("old\n", current, lambda: present[0], StopNotice()):
            received += part.decode()
            match received.splitlines()[-1]:
                case "old":
                    first.write_text("old\nnew\n")
                case "new":  # the engine is started again, with a log of its own
                    second.write_text("again\n")
                    paths[:] = [second]
                case "again":
                    second.write_text("again\nlast words\n")
                    present[0] = False
    assert received == "old\nnew\nagain\nlast words\n"


async def test_following_ends_with_a_line_when_the_server_stops(tmp_path: Path) -> None:
    log, notice = tmp_path / "r1.log", StopNotice()
    log.write_text("old\n")
    received = b""
    async with asyncio.timeout(30):
        async for part in models._follow("old\n", lambda: [log], lambda: True, notice):
            received += part
            notice.give()
    assert received == b"old\n\nThe server is stopping.\n"
