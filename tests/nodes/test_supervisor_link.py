"""A worker's link to its supervisor: when it is tried again, and who hears that it is up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, cast

import pytest

from xinference.error_codes import Code
from xinference.nodes import supervisor_link
from xinference.nodes.certificates import NodeIdentity
from xinference.nodes.hello import Hello, Welcome
from xinference.nodes.joining import Membership
from xinference.nodes.supervisor_link import (
    QUICK_FOR_SECONDS,
    QUICK_SECONDS,
    REFUSED_SECONDS,
    RETRY_SECONDS,
    SupervisorLink,
    retry_seconds,
)


def test_a_supervisor_that_starts_again_is_tried_several_times_a_second() -> None:
    assert retry_seconds("", 0.0, is_reached=False) == QUICK_SECONDS <= 0.2
    assert retry_seconds(Code.SERVER_UNREACHABLE, QUICK_FOR_SECONDS, is_reached=False) == QUICK_SECONDS


def test_a_supervisor_that_stays_away_is_tried_each_second() -> None:
    assert retry_seconds(Code.SERVER_UNREACHABLE, QUICK_FOR_SECONDS + 1, is_reached=False) == RETRY_SECONDS


def test_a_supervisor_that_has_too_much_to_do_is_tried_each_second() -> None:
    assert retry_seconds(Code.SERVER_UNREACHABLE, 0.0, is_reached=True) == RETRY_SECONDS


def test_a_supervisor_that_refuses_the_node_is_tried_rarely() -> None:
    assert retry_seconds(Code.NODE_REFUSED, 0.0, is_reached=True) == REFUSED_SECONDS


class _Identity:
    """A certificate that is valid for long."""

    def is_due(self, time: float) -> bool:
        return False

    def client_context(self) -> None:
        return None


class _Program:
    """A node with an empty state."""

    def state(self) -> bytes:
        return b""


class _Writer:
    """Takes everything."""

    @property
    def transport(self) -> _Writer:
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


async def test_the_first_report_need_not_wait_for_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = asyncio.StreamReader()

    async def connect(host: str, port: int, context: ssl.SSLContext, supervisor: str) -> tuple[Any, Any]:
        return reader, _Writer()

    async def ask(stream: Any, message: Hello) -> Welcome:
        return Welcome(1, "0", None)

    monkeypatch.setattr(supervisor_link, "connect", connect)
    monkeypatch.setattr(supervisor_link, "ask", ask)
    identity = cast(NodeIdentity, _Identity())
    link = SupervisorLink(Membership("n1", "s", "h", 1), identity, "h:1", "box", {}, "machine", lambda: None)
    task = asyncio.create_task(link.run(cast(Any, _Program())))
    async with asyncio.timeout(10):
        await link.wait_changed(60)
        assert link.is_up
        reader.feed_eof()
        await link.wait_changed(60)
    assert not link.is_up
    task.cancel()


async def test_a_defect_leaves_the_worker_not_without_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    states: Iterator[bytes | Exception] = iter([ZeroDivisionError(), b""])

    class Failing:
        def state(self) -> bytes:
            state = next(states)
            if isinstance(state, Exception):
                raise state
            return state

    async def connect(host: str, port: int, context: ssl.SSLContext, supervisor: str) -> tuple[Any, Any]:
        return asyncio.StreamReader(), _Writer()

    async def ask(stream: Any, message: Hello) -> Welcome:
        return Welcome(1, "0", None)

    for name, value in (("connect", connect), ("ask", ask), ("RETRY_SECONDS", 0.0)):
        monkeypatch.setattr(supervisor_link, name, value)
    identity = cast(NodeIdentity, _Identity())
    link = SupervisorLink(Membership("n1", "s", "h", 1), identity, "h:1", "box", {}, "machine", lambda: None)
    task = asyncio.create_task(link.run(cast(Any, Failing())))
    async with asyncio.timeout(10):
        while not link.is_up:
            await link.wait_changed(60)
    task.cancel()
