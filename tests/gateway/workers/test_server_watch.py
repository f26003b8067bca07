"""A request that waits for the server ends with a 503 when the server hangs, and gives back what is granted later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.harness import call
from xinference.gateway.workers import server_watch
from xinference.gateway.workers.ipc import Cancel, Grant, TakeKeyPermit, TakeRequest
from xinference.gateway.workers.management_proxy import ManagementProxy
from xinference.gateway.workers.proxies import ServerProxy
from xinference.gateway.workers.server_watch import ServerWatch
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.protocol.errors import Refusal

KEY = Key("k1", "k", digest(b"secret"), frozenset({"use"}), requests_per_minute=1)


class Channel:
    """A channel to a server that never answers."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture(autouse=True)
def short_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_watch, "CHECK_SECONDS", 0.01)


async def test_a_request_that_waits_for_a_permit_is_refused_when_the_server_hangs() -> None:
    channel, watch = Channel(), ServerWatch()
    proxy = ServerProxy(cast(Any, channel))
    watching = asyncio.create_task(watch.run(proxy.refuse_waiting))
    with pytest.raises(Refusal) as caught:
        async with asyncio.timeout(5), proxy.key_permit(KEY, 1):
            pass
    watching.cancel()
    assert caught.value.status == 503 and caught.value.code == "server_unreachable"
    question, given_back = channel.sent
    assert isinstance(question, TakeKeyPermit) and given_back == Cancel(question.number)


async def test_a_server_that_sends_messages_does_not_hang() -> None:
    channel, watch = Channel(), ServerWatch()
    proxy = ServerProxy(cast(Any, channel))
    refused = asyncio.Event()
    watching = asyncio.create_task(watch.run(refused.set))
    asked = asyncio.create_task(proxy.take_request(KEY, 0.0))
    for _ in range(3 * server_watch.SILENT_CHECKS):
        watch.heard()
        await asyncio.sleep(server_watch.CHECK_SECONDS)
    assert not refused.is_set() and not asked.done()
    proxy.resolve(Grant(cast(TakeRequest, channel.sent[0]).number))
    await asked
    watching.cancel()


async def test_a_management_request_is_refused_when_the_server_hangs(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    watch = ServerWatch()
    watching = asyncio.create_task(watch.run(lambda: None))
    async with await asyncio.start_unix_server(never, tmp_path / "s"), asyncio.timeout(5):
        proxy = ManagementProxy(str(tmp_path / "s"), 1000, watch)
        found = await call(proxy, "/v1/keys", method="GET")
        await proxy.close()
        ended.set()
    watching.cancel()
    assert found.status == 503 and b"has not answered" in found.body
