"""Waits that end when the server begins to stop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.routing import routes
from xinference.control.publisher import Publisher
from xinference.control.stop_notice import StopNotice
from xinference.error_codes import Code
from xinference.errors import Problem, not_found
from xinference.store.database import Store
from xinference.store.event_log import EventLog


async def test_work_that_waits_is_cancelled_and_its_caller_told() -> None:
    notice, cancelled = StopNotice(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(notice.unless_given(work()))
    await asyncio.sleep(0)
    notice.give()
    with pytest.raises(Problem) as told:
        await waiting
    assert (told.value.code, told.value.status) == ("server_stopping", 503)
    await cancelled.wait()


async def test_work_that_is_done_keeps_its_result_and_its_problem() -> None:
    async def done() -> int:
        return 7

    async def fails() -> int:
        raise Problem(Code.NO_ROOM, "full")

    assert await StopNotice().unless_given(done()) == 7
    with pytest.raises(Problem, match="full"):
        await StopNotice().unless_given(fails())


async def test_nothing_is_begun_after_the_notice() -> None:
    notice, begun = StopNotice(), []

    async def work() -> None:
        begun.append(1)

    notice.give()
    with pytest.raises(Problem, match="stopping"):
        await notice.unless_given(work())
    assert begun == []
    assert await notice.sleep(3600)


async def test_requests_that_wait_for_a_target_are_told_at_once_and_ready_ones_go_on() -> None:
    publisher = Publisher()
    publisher.publish([(routes.route(uid="m", targets=()), {"id": "m"})])

    def unknown(uid: str) -> Problem:
        return not_found(uid, code=Code.MODEL_NOT_FOUND)

    waiting = asyncio.create_task(publisher.wait_until_ready("m", time.monotonic() + 3600, None, unknown))
    await asyncio.sleep(0)
    publisher.end_waits()
    with pytest.raises(Problem) as told:
        await waiting
    assert told.value.code == "server_stopping"
    with pytest.raises(Problem, match="stopping"):
        await publisher.wait_until_ready("m", time.monotonic() + 3600, None, unknown)
    publisher.publish([(routes.route(routes.TARGET, uid="m"), {"id": "m"})])
    assert (await publisher.wait_until_ready("m", time.monotonic() + 3600, None, unknown)).targets


async def test_followers_get_a_last_event_that_is_not_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db")
    log = EventLog(store)
    log.add("m", "INFO", "fetch", "fetching")
    seen: list[dict[str, Any]] = []

    async def follow() -> None:
        async for event in log.follow("m", None):
            seen.append(event)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    log.end_followers()
    await following
    assert [event["event_type"] for event in seen] == ["INFO", "SERVER_STOPPING"]
    assert seen[-1]["problem"]["code"] == "server_stopping"
    await follow()
    assert [event["event_type"] for event in seen][2:] == ["INFO", "SERVER_STOPPING"]
    assert [event["event_type"] for event in log.stored("m")] == ["INFO"]
    store.close()
