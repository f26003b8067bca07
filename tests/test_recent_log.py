"""The last lines of the server's log, as they are read over REST."""

from __future__ import annotations

import asyncio
import io
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xinference import recent_log
from xinference.api.routes import logs
from xinference.control.stop_notice import StopNotice
from xinference.log_position import LogPosition
from xinference.log_setup import TextFormatter
from xinference.recent_log import RecentLog, RecentLogHandler


def test_the_log_is_bounded_and_a_place_that_is_gone_begins_with_the_oldest_line() -> None:
    log = RecentLog(kept=30)
    log.add("first")
    place = log.end
    for number in range(20):
        log.add(f"line {number}")
    assert log.read_from(place).data == log.read_from(LogPosition("other", 3)).data == b"line 17\nline 18\nline 19\n"
    assert log.read_last_lines(1).data == b"line 19\n"
    assert log.read_from(log.end).data == b""
    log.add("é")
    assert log.read_from(log.end.before(3)).data == "é\n".encode()


def test_each_record_is_written_and_kept_once() -> None:
    stream, log = io.StringIO(), RecentLog()
    handler = RecentLogHandler(stream, log)
    handler.setFormatter(TextFormatter())
    handler.handle(logging.LogRecord("xinference", logging.INFO, "f", 1, "m: %s", ("ready",), None))
    assert log.read_last_lines(5).data.decode() == stream.getvalue()
    assert stream.getvalue().endswith("INFO xinference: m: ready\n")


async def test_a_follower_gets_what_is_logged_until_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    log, notice = RecentLog(), StopNotice()
    monkeypatch.setattr(recent_log, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(logs, "RECENT", log)
    log.add("before")
    log.add("begin")
    controller = cast(Any, SimpleNamespace(stop_notice=notice))
    answer = await logs.server_logs(controller, 1, True, None)
    place = LogPosition.parse(answer.headers["X-Log-Offset"])
    received = b""
    async with asyncio.timeout(30):
        async for part in cast(Any, answer).body_iterator:
            received += part
            if part == b"begin\n":
                log.add("more")
            elif part == b"more\n":
                log.add("last words")
                notice.give()
    assert received == b"begin\nmore\nlast words\n"
    assert place is not None and log.read_from(place).data == received
    rest = await logs.server_logs(controller, 40, False, str(place))
    assert (rest.body, rest.headers["X-Log-Offset"]) == (received, str(log.end))
