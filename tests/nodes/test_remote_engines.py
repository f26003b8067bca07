"""Keepers with fake engines on a node behind a link: they outlive the agent, which answers while it works."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
import pytest

from tests.deployments.doubles import ENGINE, launch_of, local_nodes
from tests.nodes.test_remote import Taken
from tests.process.conftest import EngineHome
from tests.process.conftest import home as home
from tests.support.cluster import linked
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.hubs.base import Hub
from xinference.launch.plan import ResolvedLaunch
from xinference.nodes.node import Node
from xinference.process.snapshot import ReplicaState
from xinference.routing.interfaces import NoLoad

pytestmark = pytest.mark.process


def machine(home: EngineHome, hubs: dict[str, Hub] | None = None) -> Node:
    """This machine, whose engines wait long enough for the next agent on a busy one."""
    settings = replace(home.settings, grace_seconds=30.0)
    return local_nodes(settings, {ENGINE: LlamaCpp()}, NoLoad(), hubs or {})[LOCAL_NODE]


async def test_an_engine_outlives_its_agent_and_is_taken_back_with_the_same_pid(home: EngineHome) -> None:
    async with linked(machine(home)) as link:
        mirror = link.remote.start("r1", home.command(), lambda: None)
        await mirror.wait_ready()
        before = mirror.snapshot
        assert before.engine_pid and psutil.pid_exists(before.engine_pid)
        link.cut()
        await link.agent.close()  # the process of the worker ends; its keepers wait for the next one
        changed = asyncio.Event()
        mirror.report_to(changed.set)
        link.restart_agent(machine(home))
        async with asyncio.timeout(30):
            await changed.wait()
        after = mirror.snapshot
        assert (after.engine_pid, after.keeper_pid, after.state) == (
            before.engine_pid,
            before.keeper_pid,
            ReplicaState.READY,
        )
        assert (await link.remote.measure(after)) is not None
        exit = await mirror.stop()
        assert exit is not None and exit.requested and mirror.snapshot.state is ReplicaState.EXITED
    assert home.living() == []


async def test_an_engine_that_died_while_its_agent_was_away_is_told_as_gone(home: EngineHome) -> None:
    async with linked(machine(home)) as link:
        mirror = link.remote.start("r1", home.command(), lambda: None)
        await mirror.wait_ready()
        link.cut()
        await link.agent.close()
        assert mirror.snapshot.keeper_pid and mirror.snapshot.engine_pid
        for pid in (mirror.snapshot.keeper_pid, mirror.snapshot.engine_pid):
            psutil.Process(pid).kill()
        link.restart_agent(machine(home))
        async with asyncio.timeout(30):
            exit = await mirror.wait_exited()
        assert not exit.requested and "has no process of the engine any more" in exit.reason


class SlowHub:
    """A hub whose fetch blocks its thread until the test lets it end."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def find_cached(self, version: Any, source: Any) -> Path | None:
        return None

    def fetch(self, version: Any, source: Any, progress: Any, cancelled: threading.Event) -> Path:
        self.began.set()
        assert self.may_end.wait(60)
        if cancelled.is_set():
            raise Problem("cancelled", "It was cancelled.")
        return Path("/there")


async def test_the_agent_answers_while_it_fetches(home: EngineHome) -> None:
    hub = SlowHub()
    plan = launch_of("one")
    source = msgspec.structs.replace(plan.version.spec.sources[0], hub="local")
    async with linked(machine(home, {"local": cast(Hub, hub)})) as link:
        fetching = asyncio.create_task(link.remote.fetch_weights(ResolvedLaunch(plan.draft, source), Taken()))
        await asyncio.to_thread(hub.began.wait, 60)
        assert (await link.remote.host()).memory_total > 0
        assert not fetching.done()
        hub.may_end.set()
        assert await fetching == Path("/there")
