"""The termination of a deployment: one task for each uid, which ends with its row."""

from __future__ import annotations

import asyncio

import pytest

from tests.control.parts import Parts
from tests.control.test_controller import DIED
from tests.deployments.doubles import turns
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem


class SlowEnds:
    """Ends of deployments that take until the test lets them end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.allowed = asyncio.Event()

        async def end(deployment: Deployment, how: str) -> None:
            self.count += 1
            await self.allowed.wait()

        monkeypatch.setattr(Deployment, "end", end)


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> SlowEnds:
    return SlowEnds(monkeypatch)


async def test_the_uid_is_taken_until_the_engines_have_ended(parts: Parts, ends: SlowEnds) -> None:
    parts.add("m")
    ending = parts.terminations.begin(parts.registry.deployment("m"))
    waiting = asyncio.create_task(parts.terminations.wait("m"))
    await turns()
    assert list(parts.terminations.uids) == ["m"] and parts.uids() == ["m"] and not waiting.done()
    assert parts.rows() == [], "a server that starts now does not restore it"
    ends.allowed.set()
    await ending
    await waiting
    assert parts.uids() == [] and not parts.terminations.uids and parts.store.deployments() == []
    assert parts.ended == ["m"] and "m" not in parts.publisher.table.routes


async def test_the_last_event_is_that_it_was_terminated(parts: Parts, ends: SlowEnds) -> None:
    parts.add("m")
    followed = parts.events.follow("m", None)
    event = asyncio.ensure_future(anext(followed))
    await turns()
    ends.allowed.set()
    await parts.terminations.terminate("m")
    assert (await event)["event_type"] == "TERMINATED"


async def test_two_terminations_are_one_and_an_impatient_client_does_not_stop_it(parts: Parts, ends: SlowEnds) -> None:
    parts.add("m")
    first, second = (asyncio.create_task(parts.terminations.terminate("m")) for _ in range(2))
    await turns()
    first.cancel()
    ends.allowed.set()
    await second
    assert first.cancelled() and ends.count == 1 and parts.uids() == []


async def test_a_termination_that_fails_can_be_repeated(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.add("m")

    async def end(deployment: Deployment, how: str) -> None:
        raise OSError("the engine does not end")

    with monkeypatch.context() as patch:
        patch.setattr(Deployment, "end", end)
        with pytest.raises(OSError, match="does not end"):
            await parts.terminations.terminate("m")
    assert parts.uids() == ["m"] and not parts.terminations.uids


async def test_only_a_launch_that_is_not_complete_is_cancelled(parts: Parts, begun: list[Deployment]) -> None:
    parts.add("failed", DIED)
    with pytest.raises(Problem, match="it is failed") as refused:
        await parts.terminations.cancel("failed")
    assert refused.value.code == "not_launching"
    parts.add("launching")
    await parts.terminations.cancel("launching")
    assert parts.uids() == ["failed"]


async def test_a_restart_notices_a_termination_and_a_replacement(parts: Parts, ends: SlowEnds) -> None:
    first = parts.add("m")
    parts.terminations.check_absent(first)
    second = parts.add("m")
    parts.terminations.begin(second)
    for deployment in (first, second):
        with pytest.raises(Problem, match="m was terminated"):
            parts.terminations.check_absent(deployment)
    ends.allowed.set()
    await parts.terminations.wait("m")
