"""The fabric over a real Ray: a head and a second node on this machine, two workers' sockets, one bridge.

These tests run where the extra ``cluster`` is installed: ``make test-cluster``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.support.polling import until_async
from xinference.fabric.fabric import Event, Link, NodeGoneError, NoReservationError, Share
from xinference.fabric.node_socket import NodeSocket
from xinference.fabric.ray_node import RayNode, RayPorts, RaySecurity, bridge_environment

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
from xinference.fabric.ray_fabric import RayFabric

pytestmark = [pytest.mark.live, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

HEAD, NODE = "n00000000000a", "n00000000000b"
ADDRESS = "127.0.0.1:10200"
SECURITY = RaySecurity(token="a-token-of-this-test-with-many-characters")


@dataclass
class Program:
    """A node that answers at once, except to ``wait``."""

    tables: list[bytes] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)

    async def answer(self, message: bytes) -> bytes:
        if message == b"wait":
            await asyncio.Event().wait()
        return b"answer to " + message

    def receive(self, message: bytes) -> None:
        self.told.append(message)

    def receive_table(self, table: bytes) -> None:
        self.tables.append(table)

    def state(self) -> bytes:
        return b"state"


@dataclass
class Cluster:
    """Two Ray nodes, the workers' sockets, and the fabric."""

    fabric: RayFabric
    folder: Path
    programs: dict[str, Program] = field(default_factory=dict)
    sockets: dict[str, NodeSocket] = field(default_factory=dict)
    nodes: dict[str, RayNode] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    events: list[tuple[str, Event]] = field(default_factory=list)

    async def join(self, node: str) -> None:
        """Start the Ray processes of a node."""
        ray_node, is_head = self.nodes[node], node == HEAD
        ray_node.clear()
        command = ray_node.head_command() if is_head else ray_node.node_command(ADDRESS)
        environment = os.environ | ray_node.environment(self.folder / "store" if is_head else None)
        with (self.folder / f"{node}.log").open("ab") as output:
            self.processes[node] = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def raylet(self, node: str) -> psutil.Process:
        marks = ("raylet/raylet", str(self.nodes[node].folder))
        return next(p for p in psutil.process_iter(["cmdline"]) if _has_all(" ".join(p.info["cmdline"] or ()), marks))

    async def until_up(self, *nodes: str, seconds: float = 90) -> None:
        try:
            await until_async("", lambda: self.fabric._up == set(nodes), seconds)
        except AssertionError:
            raise AssertionError(f"{sorted(self.fabric._up)} are up, not {nodes}; links: {self.links}") from None


def _has_all(text: str, marks: tuple[str, ...]) -> bool:
    return all(mark in text for mark in marks)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="xr-") as name:
        folder = Path(name)
        fabric = RayFabric(ADDRESS, bridge_environment(SECURITY), folder / "bridge.log")
        cluster = Cluster(fabric, folder)
        for number, node in enumerate((HEAD, NODE)):
            first = 10201 + 5 * number
            ports = RayPorts(
                10200, first, first + 1, first + 2, first + 3, first + 4, 10220 + 30 * number, 10249 + 30 * number
            )
            path = folder / f"{number}.sock"
            cluster.programs[node] = Program()
            cluster.sockets[node] = NodeSocket(path, cluster.programs[node])
            cluster.nodes[node] = RayNode(
                node, "127.0.0.1", path, folder / f"ray{number}", gpus=2 * number, ports=ports, security=SECURITY
            )
            await cluster.sockets[node].open()
        fabric.publish(b"first table")
        fabric.start()
        readers = [asyncio.create_task(_read_links(cluster)), asyncio.create_task(_read_events(cluster))]
        try:
            await cluster.join(HEAD)
            await cluster.until_up(HEAD)
            await cluster.join(NODE)
            await cluster.until_up(HEAD, NODE)
            yield cluster
        finally:
            await fabric.close()
            for reader in readers:
                reader.cancel()
            for node in (NODE, HEAD):
                await cluster.sockets[node].close()
            _end_all(folder)


async def _read_links(cluster: Cluster) -> None:
    async for link in cluster.fabric.links():
        cluster.links.append(link)


async def _read_events(cluster: Cluster) -> None:
    async for event in cluster.fabric.events():
        cluster.events.append(event)


def _end_all(folder: Path) -> None:
    """End every process of this cluster: Ray's processes have its folder in their command line or environment."""
    for process in psutil.process_iter():
        try:
            ours = str(folder) in " ".join(process.cmdline()) or str(folder) in " ".join(process.environ().values())
            if ours and process.pid != os.getpid():
                process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue


async def test_a_node_answers_a_call(cluster: Cluster) -> None:
    assert await cluster.fabric.call(NODE, b"look", 10) == b"answer to look"
    assert await cluster.fabric.call(HEAD, b"x" * 1_000_000, 10) == b"answer to " + b"x" * 1_000_000


async def test_many_calls_at_once_are_answered(cluster: Cluster) -> None:
    answers = await asyncio.gather(*(cluster.fabric.call(NODE, b"%d" % n, 30) for n in range(100)))
    assert answers == [b"answer to %d" % n for n in range(100)]


async def test_a_node_that_says_nothing_in_time_is_a_timeout(cluster: Cluster) -> None:
    with pytest.raises(TimeoutError):
        await cluster.fabric.call(NODE, b"wait", 0.5)


async def test_a_node_that_never_joined_is_gone(cluster: Cluster) -> None:
    with pytest.raises(NodeGoneError):
        await cluster.fabric.call("n00000000000f", b"look", 5)


async def test_a_node_has_the_table_and_gets_messages(cluster: Cluster) -> None:
    cluster.fabric.tell(NODE, b"hello")
    cluster.fabric.publish(b"second table")
    program = cluster.programs[NODE]
    await until_async("both have arrived", lambda: program.told == [b"hello"] and program.tables[-1] == b"second table")
    assert program.tables[0] == b"first table"


async def test_events_arrive_in_order_after_the_state(cluster: Cluster) -> None:
    for n in range(50):
        cluster.sockets[HEAD].send(b"%d" % n)
    await until_async("the last event has arrived", lambda: (HEAD, Event(51, b"49")) in cluster.events)
    assert [event for node, event in cluster.events if node == HEAD] == [
        Event(1, b"state"),
        *(Event(2 + n, b"%d" % n) for n in range(50)),
    ]


async def test_a_reservation_is_whole_or_not_at_all(cluster: Cluster) -> None:
    with pytest.raises(NoReservationError):
        await cluster.fabric.reserve([Share(HEAD, 1), Share(NODE, 1)])
    first = await cluster.fabric.reserve([Share(NODE, 2)])
    with pytest.raises(NoReservationError):
        await cluster.fabric.reserve([Share(NODE, 1)])
    await first.release()
    second = await cluster.fabric.reserve([Share(NODE, 1)])
    await second.release()


async def test_a_worker_that_starts_again_has_a_new_link_and_says_its_state(cluster: Cluster) -> None:
    before = len(cluster.links)
    await cluster.sockets[NODE].close()
    await until_async("the link is down", lambda: Link(NODE, False) in cluster.links[before:])
    with pytest.raises(NodeGoneError):
        await cluster.fabric.call(NODE, b"look", 5)
    cluster.programs[NODE].tables.clear()
    await cluster.sockets[NODE].open()
    await cluster.until_up(HEAD, NODE)
    assert await cluster.fabric.call(NODE, b"again", 10) == b"answer to again"
    await until_async("the node has the newest table", lambda: cluster.programs[NODE].tables == [b"second table"])


async def test_a_killed_bridge_takes_the_links_down_and_brings_them_up_again(cluster: Cluster) -> None:
    call = asyncio.create_task(cluster.fabric.call(NODE, b"wait", 60))
    await asyncio.sleep(0)
    assert cluster.fabric.bridge_pid is not None
    os.kill(cluster.fabric.bridge_pid, signal.SIGKILL)
    with pytest.raises(NodeGoneError):
        await call
    await cluster.until_up(HEAD, NODE)
    assert await cluster.fabric.call(NODE, b"again", 10) == b"answer to again"


async def test_a_killed_raylet_is_known_and_its_node_comes_back_with_a_new_one(cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    cluster.raylet(NODE).kill()
    killed = loop.time()
    await cluster.until_up(HEAD)
    print(f"a killed raylet is known after {loop.time() - killed:.1f} s")
    assert await cluster.fabric.call(HEAD, b"still", 10) == b"answer to still"
    await cluster.join(NODE)
    await cluster.until_up(HEAD, NODE)
    assert await cluster.fabric.call(NODE, b"again", 10) == b"answer to again"


async def test_a_killed_head_finds_its_nodes_alive_again(cluster: Cluster) -> None:
    node_pid = cluster.raylet(NODE).pid
    head = psutil.Process(cluster.processes[HEAD].pid)
    for process in (*head.children(recursive=True), head):
        process.kill()
    await until_async("the head's own link is down", lambda: HEAD not in cluster.fabric._up, 60)
    await cluster.join(HEAD)
    await cluster.until_up(HEAD, NODE)
    assert cluster.raylet(NODE).pid == node_pid, "the node's raylet lives on"
    assert await cluster.fabric.call(NODE, b"again", 10) == b"answer to again"


async def test_a_bridge_without_the_token_gets_no_link(cluster: Cluster) -> None:
    stranger = RayFabric(ADDRESS, bridge_environment(RaySecurity(token="wrong")), cluster.folder / "stranger.log")
    stranger.start()
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stranger.links()), 15)
    finally:
        await stranger.close()
