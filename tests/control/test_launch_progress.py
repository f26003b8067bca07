"""The progress and the events of a launch, also after it has failed and has left the list."""

from __future__ import annotations

from typing import Any

import pytest

from tests.control.parts import Parts
from tests.control.test_controller import DIED
from xinference.deployments.snapshot import Status
from xinference.errors import Problem
from xinference.store.event_log import final_event


async def followed(parts: Parts, uid: str) -> list[dict[str, Any]]:
    return [event async for event in parts.progress.follow(uid)]


async def test_an_unknown_uid_has_no_progress_and_no_events(parts: Parts) -> None:
    assert parts.progress.progress("m")["progress"] == 0.0
    for read in (parts.progress.events, parts.progress.follow):
        with pytest.raises(Problem) as refused:
            read("m")
        assert refused.value.code == "model_not_found"


async def test_a_failed_launch_that_has_left_the_list_ends_with_its_problem(parts: Parts) -> None:
    parts.history.begun("m", "{}", 5.0)
    parts.history.ended("m", DIED)
    (event,) = await followed(parts, "m")
    assert (event["event_type"], event["problem"]) == ("FAILED", DIED.to_dict())
    assert parts.progress.progress("m")["stage"] == "failed"


async def test_a_settled_deployment_ends_the_events_at_once(parts: Parts) -> None:
    parts.add("failed", DIED)
    assert (await followed(parts, "failed"))[-1]["problem"] == DIED.to_dict()
    parts.add("unloaded")._record.change(unloaded=True, launching=False, status=Status.UNLOADED)
    (event,) = await followed(parts, "unloaded")
    assert event["event_type"] == "READY" and event["model"]["model_uid"] == "unloaded"


async def test_the_events_of_a_launch_end_with_its_own_last_one(parts: Parts) -> None:
    parts.add("m")
    events = parts.progress.follow("m")
    parts.events.add("m", "INFO", "start", "started")
    assert (await anext(events))["event_content"] == "started"
    parts.events.add("m", "TERMINATED", "stop", "terminated")
    assert [event["event_type"] async for event in events] == ["TERMINATED"]


async def test_a_model_that_starts_again_shows_only_the_events_of_this_start(parts: Parts) -> None:
    parts.add("m")
    for event_type, content in (("INFO", "first start"), ("READY", "ready"), ("INFO", "second start")):
        parts.events.add("m", event_type, "start", content)
    starting = parts.events.follow("m", None)
    assert (await anext(starting))["event_content"] == "second start"
    parts.events.add("m", "READY", "ready", "ready again")
    assert [event["event_content"] async for event in starting] == ["ready again"]
    settled = [event["event_content"] async for event in parts.events.follow("m", final_event("READY", "ready now"))]
    assert settled == ["first start", "second start", "ready now"]
