"""Every message to the owner of a deployment at every time: it is handled, or ignored by name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.doubles import DIED, FakeReplica, World, inbox_of, running_world, turns
from tests.deployments.steps import launched
from tests.support.examples import DIVISOR
from xinference.deployments.deployment import Deployment
from xinference.deployments.messages import (
    Abandoned,
    Begin,
    Defect,
    Drained,
    Evict,
    Granted,
    Message,
    Placed,
    PreparationFailed,
    Prepared,
    Refused,
    ReplicaChanged,
    ReplicaDrained,
    ReplicaExited,
    ReplicaReady,
    ReplicasFailed,
    Requested,
    RestartDue,
    SetAliases,
    SetTerms,
    StageBegan,
    Unload,
    Waits,
    WeightsRead,
)
from xinference.deployments.snapshot import Stage
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.place import Place


async def _nothing(world: World) -> Deployment:
    return world.add(begin=False)


async def _fetches(world: World) -> Deployment:
    world.preparation.held.add("fetch")
    return world.add()


async def _installs(world: World) -> Deployment:
    world.preparation.held.add("environment")
    return world.add()


async def _starts(world: World) -> Deployment:
    return world.add()


async def _is_ready(world: World) -> Deployment:
    return await launched(world)


async def _restarts(world: World) -> Deployment:
    deployment = await launched(world)
    world.starter.instant = False
    world.starter.running[0].die()
    return deployment


async def _has_failed(world: World) -> Deployment:
    world.preparation.problems["fetch"] = Problem(
        "gone",
        "It is gone.",
        status=502,
    )
    return world.add()


async def _is_unloaded(world: World) -> Deployment:
    return world.add(on_demand=True)


async def _is_queued(world: World) -> Deployment:
    world.load.settles = 0
    return await _asked(world)


async def _loads(world: World) -> Deployment:
    return await _asked(world)


async def _is_loaded(world: World) -> Deployment:
    world.starter.instant = True
    return await _asked(world)


async def _drains(world: World) -> Deployment:
    deployment = await _is_loaded(world)
    world.load.settles = 1
    deployment.evict("for a test", only_idle=False)
    return deployment


async def _asked(world: World) -> Deployment:
    deployment = world.add(on_demand=True)
    await turns()
    with deployment.wait("one"):
        await turns()
    return deployment


TIMES: list[Callable[[World], Any]] = [
    *(_nothing, _fetches, _installs, _starts, _is_ready, _restarts, _has_failed),
    *(_is_unloaded, _is_queued, _loads, _is_loaded, _drains),
]


def stale(world: World) -> FakeReplica:
    """A process that is no replica's any more."""
    return FakeReplica("stale", lambda: None)


MESSAGES: dict[str, Callable[[World, Deployment], Message]] = {
    "StageBegan": lambda w, d: StageBegan(Stage.FETCH, "fetching"),
    "Refused": lambda w, d: Refused(Problem(Code.NO_ROOM, "There is no room.")),
    "Requested": lambda w, d: Requested(d.snapshot.refusals),
    "Requested, told": lambda w, d: Requested(-1),
    "Abandoned": lambda w, d: Abandoned(),
    "Evict, idle": lambda w, d: Evict("for a test", only_idle=True),
    "Evict": lambda w, d: Evict("for a test", only_idle=False),
    "Drained": lambda w, d: Drained(),
    "ReplicaChanged": lambda w, d: ReplicaChanged(),
    "ReplicaReady": lambda w, d: ReplicaReady(0, stale(w), None),
    "ReplicaExited": lambda w, d: ReplicaExited(0, stale(w), DIED),
    "RestartDue": lambda w, d: RestartDue(0, Path("python")),
    "Waits": lambda w, d: Waits(0, Problem(Code.NO_NODE, "No node has room.")),
    "Placed": lambda w, d: Placed(0, Place()),
    "ReplicaDrained": lambda w, d: ReplicaDrained(0, stale(w), in_time=True),
    "PreparationFailed": lambda w, d: PreparationFailed(
        Problem(
            "gone",
            "It is gone.",
            status=502,
        )
    ),
    "ReplicasFailed": lambda w, d: ReplicasFailed(Problem(Code.ENGINE_DIED, "It died.")),
    "SetAliases": lambda w, d: SetAliases(("other",), asyncio.get_running_loop().create_future()),
    "SetTerms": lambda w, d: SetTerms({"pin": True}, asyncio.get_running_loop().create_future()),
    "Unload": lambda w, d: Unload(asyncio.get_running_loop().create_future()),
    "Unload for a restart": lambda w, d: Unload(asyncio.get_running_loop().create_future(), for_restart=True),
    "Defect": lambda w, d: Defect(KeyError("x")),
}


@pytest.mark.parametrize("time", TIMES, ids=lambda time: time.__name__.strip("_"))
async def test_every_message_at_every_time_is_handled_or_ignored_and_the_owner_goes_on(
    tmp_path: Path, time: Callable[[World], Any]
) -> None:
    failures: list[Exception] = []
    # Where examples are divided, each time gets others.
    for name in islice(MESSAGES, TIMES.index(time) % DIVISOR, None, DIVISOR):
        try:
            async with running_world(tmp_path / name) as world:
                await _is_handled_or_ignored(world, time, name)
        except Exception as error:  # noqa: BLE001 -- all of them are raised below
            error.add_note(f"the message: {name}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(MESSAGES)} messages", failures)


async def _is_handled_or_ignored(world: World, time: Callable[[World], Any], name: str) -> None:
    deployment: Deployment = await time(world)
    await turns()
    before = deployment.snapshot
    inbox_of(deployment).put(MESSAGES[name](world, deployment))
    await turns()
    after = deployment.snapshot
    # None of these messages is a defect of ours, whenever it comes.
    assert name == "Defect" or after.problem is None or after.problem.code != "internal_error"
    if before.problem is not None or (name.startswith("Replica") and name != "ReplicasFailed"):
        assert (after.status, after.problem, after.residency) == (before.status, before.problem, before.residency)
    world.load.settle_all()
    world.preparation.release()
    async with asyncio.timeout(30):
        await deployment.end("terminate")
    assert world.starter.running == [] and world.store.replicas("one") == []
    assert world.ledger == {} and world.queue == []


def test_every_message_is_tested() -> None:
    from xinference.deployments import messages

    # Those that only the owner's own helpers send, once, are part of every launch above.
    elsewhere = {Begin, WeightsRead, Prepared, Granted, messages.AddReplica, messages.RemoveReplica, messages.End}
    names = {kind.__name__ for kind in messages.Message.__args__ if kind not in elsewhere}
    assert names == {re.split(",| for", name)[0] for name in MESSAGES}
