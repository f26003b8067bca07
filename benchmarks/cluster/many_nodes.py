"""A supervisor with 1,000 nodes: what its process does for their statuses, and how soon all have a table.

Simulated: the nodes, which are sockets of one other process that send the reports of a worker, when a worker would, and
read what comes. Their clocks do not differ. With clocks that differ, each report would arrive alone, and the CPU time
would be a third to a half longer.
Real: the supervisor's fabric, the states of the nodes, and the sockets on loopback, without TLS.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

import uvloop
from tests.support.polling import until_async

from benchmarks.cluster.figures import Figure
from xinference.cluster.members import Member, Members
from xinference.cluster.rows import NodeRow
from xinference.fabric.frames import NodeEvent, Table, to_frame
from xinference.fabric.stream_fabric import StreamFabric
from xinference.hardware.devices import read_host
from xinference.nodes.membership import NodeState
from xinference.nodes.message_codec import encode
from xinference.nodes.messages import HostIs, WholeState
from xinference.nodes.report_slots import REPORT_SECONDS, seconds_to_report

NODES, TABLE_BYTES, SECONDS = 1000, 60_000, 20.0


def measure() -> list[Figure]:
    """The figures of a supervisor's process."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    nodes = multiprocessing.get_context("spawn").Process(target=_run_nodes, args=(there,), daemon=True)
    nodes.start()
    try:
        return uvloop.run(_supervise(here))
    finally:
        nodes.kill()
        nodes.join()


async def _supervise(nodes: Connection) -> list[Figure]:
    fabric = StreamFabric()
    members = Members(fabric, 1, {}, 30.0, lambda replica_id: True)
    for number in range(NODES):
        members.add(NodeRow(_name(number), _name(number), {}, False, 0.0, None))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fabric.serve((await reader.readline()).decode().strip(), reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve(reader, writer)))

    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=NODES)
    running = asyncio.create_task(members.run())
    nodes.send(server.sockets[0].getsockname()[1])
    await until_async("all nodes are READY", lambda: all(_is_ready(members, each) for each in members), 120)
    await asyncio.sleep(5)
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(SECONDS)
    cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    sent = time.time()
    fabric.publish(bytes(TABLE_BYTES))
    received = await asyncio.to_thread(nodes.recv)
    server.close()
    for task in (running, *serving):
        task.cancel()
    await asyncio.gather(running, *serving, return_exceptions=True)
    note = f"{NODES} simulated nodes, a status each {REPORT_SECONDS:g} s"
    return [
        Figure("processor time of the supervisor for statuses", cpu * 100, "% of a core", 2, note),
        Figure("a table of 60 kB is at all nodes", received - sent, "s", 2, f"{NODES} simulated nodes"),
    ]


def _is_ready(members: Members, member: Member) -> bool:
    return members.state_of(member) is NodeState.READY


def _run_nodes(supervisor: Connection) -> None:
    uvloop.run(_connect_all(supervisor))


async def _connect_all(supervisor: Connection) -> None:
    port = supervisor.recv()
    status, last = encode(HostIs(read_host())), [0.0] * NODES
    for number in range(NODES):
        asyncio.create_task(_node(number, port, status, last))  # noqa: RUF006 -- they end with the process
        await asyncio.sleep(REPORT_SECONDS / NODES)  # real nodes do not connect at one moment
    await until_async("all nodes have the table", lambda: all(last), 600)
    supervisor.send(max(last))
    await asyncio.sleep(60)


async def _node(number: int, port: int, status: bytes, last: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**18)
    writer.write(f"{_name(number)}\n".encode())
    writer.write(to_frame(NodeEvent("", 1, encode(WholeState()))))
    asyncio.create_task(_read(number, reader, last))  # noqa: RUF006 -- it ends with the process
    sent = 1
    while True:
        sent += 1
        writer.write(to_frame(NodeEvent("", sent, status)))
        await asyncio.sleep(seconds_to_report(_name(number), time.time()))


async def _read(number: int, reader: asyncio.StreamReader, last: list[float]) -> None:
    """Note when the whole table is there."""
    await reader.readexactly(len(to_frame(Table(bytes(TABLE_BYTES)))))
    last[number] = time.time()


def _name(number: int) -> str:
    return f"n{number:012x}"
