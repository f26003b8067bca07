"""The bridge: the process that is Ray's driver, between the server and the relays.

Ray ends a driver whose head has been away for a minute. So the server never imports Ray, and starts this process again
when it has ended: `fabric.ray_fabric` is its other end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group

from xinference.fabric.frames import (
    Answer,
    Bundle,
    Call,
    Failure,
    LinkChange,
    NodeEvent,
    Release,
    Reserve,
    Table,
    Tell,
    read_frame,
    to_frame,
)
from xinference.fabric.ray_node import NODE_RESOURCE
from xinference.fabric.ray_relay import Relay
from xinference.task_set import TaskSet

log = logging.getLogger(__name__)
NAMESPACE = "xinference"
#: The part of a node's own resource that runs a relay on that node.
PART = 0.001
#: Interval at which Ray is asked for its nodes, and at which a lost relay is created again.
POLL_SECONDS = 0.5
#: Maximum time in which Ray's head lists its nodes.
HEAD_SECONDS = 5.0
#: Maximum time in which Ray does not reach the relay of a node that it lists as alive.
UNREACHED_SECONDS = 25.0
#: The exit status of a bridge that has lost Ray's head.
HEAD_LOST = 3
#: Maximum time for a relay to start and to reach its worker.
ATTACH_SECONDS = 15.0
#: Maximum time in which Ray finds the resources of a reservation.
RESERVE_SECONDS = 10.0
_DECODER = msgspec.msgpack.Decoder(Call | Tell | Table | Reserve | Release)


class Bridge:
    """Passes messages between the server's stream and the relays of all nodes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._relays: dict[str, Any] = {}
        """The relay of each node whose link is up."""
        self._links: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskSet()
        self._groups: dict[int, Any] = {}
        self._table: bytes | None = None

    async def run(self) -> None:
        """Pass messages until the server closes its end."""
        watching = asyncio.create_task(self._watch_nodes())
        try:
            while (message := await read_frame(self._reader, _DECODER)) is not None:
                self._handle(message)
        finally:
            for task in (watching, *self._links.values()):
                task.cancel()
            self._tasks.cancel()

    def _handle(self, message: Call | Tell | Table | Reserve | Release) -> None:
        if isinstance(message, Call):
            self._tasks.start(self._call(message))
        elif isinstance(message, Tell):
            if message.node in self._relays:
                self._relays[message.node].tell.remote(message.body)
        elif isinstance(message, Table):
            self._table = message.body
            for relay in self._relays.values():
                relay.table.remote(message.body)
        elif isinstance(message, Reserve):
            self._tasks.start(self._reserve(message))
        elif (group := self._groups.pop(message.number, None)) is not None:
            remove_placement_group(group)

    async def _call(self, call: Call) -> None:
        relay = self._relays.get(call.node)
        if relay is None:
            self._send(Failure(call.number, "gone"))
            return
        try:
            reason, body = await relay.call.remote(call.body, call.seconds)
        except RayError:
            reason, body = "gone", b""
        self._send(Failure(call.number, reason) if reason else Answer(call.number, body))

    async def _reserve(self, message: Reserve) -> None:
        group = placement_group([_resources(bundle) for bundle in message.bundles], strategy="PACK")
        try:
            async with asyncio.timeout(RESERVE_SECONDS):
                await group.ready()
        except (TimeoutError, RayError) as error:
            remove_placement_group(group)
            text = str(error) or f"Ray has not found the resources within {RESERVE_SECONDS:.0f} s."
            self._send(Failure(message.number, "reservation", text))
        else:
            self._groups[message.number] = group
            self._send(Answer(message.number))

    async def _watch_nodes(self) -> None:
        """Keep a link to each living node that has a worker."""
        while True:
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    nodes = await asyncio.to_thread(ray.nodes)
            except (TimeoutError, RayError) as error:
                # A driver whose head was away hangs, also when the head is back: only a new one gets on.
                log.warning("Ray's head does not answer (%r): the bridge ends", error)
                os._exit(HEAD_LOST)
            alive = {
                name.removeprefix(NODE_RESOURCE)
                for node in nodes
                if node["Alive"]
                for name in node["Resources"]
                if name.startswith(NODE_RESOURCE)
            }
            for node in alive - self._links.keys():
                self._links[node] = asyncio.create_task(self._link(node))
            for node in self._links.keys() - alive:
                self._links.pop(node).cancel()
                self._take_down(node)
            await asyncio.sleep(POLL_SECONDS)

    async def _link(self, node: str) -> None:
        """Connect to the node again and again.

        A driver whose own raylet has died still lists the nodes, but reaches no relay: only a new one gets on.
        """
        failing_since: float | None = None
        while True:
            try:
                await self._follow(node)
                failing_since = None
            except OSError as error:  # from the relay: no worker listens. TimeoutError is one, too.
                if not isinstance(error, TimeoutError):
                    failing_since = None
                elif failing_since is None:
                    failing_since = time.monotonic() - ATTACH_SECONDS
            except RayError:
                failing_since = failing_since or time.monotonic()
            self._take_down(node)
            if failing_since is not None and time.monotonic() - failing_since > UNREACHED_SECONDS:
                log.warning("the relay of the node %s cannot be reached: the bridge ends", node)
                os._exit(HEAD_LOST)
            await asyncio.sleep(POLL_SECONDS)

    async def _follow(self, node: str) -> None:
        """Connect to the node's relay, and pass its events on until the link breaks."""
        relay = _relay(node)
        async with asyncio.timeout(ATTACH_SECONDS):
            await relay.attach.remote()
        if self._table is not None:
            relay.table.remote(self._table)
        self._relays[node] = relay
        self._send(LinkChange(node, True))
        while (batch := await relay.events.remote()) is not None:
            for number, body in batch:
                self._send(NodeEvent(node, number, body))

    def _take_down(self, node: str) -> None:
        if self._relays.pop(node, None) is not None:
            self._send(LinkChange(node, False))

    def _send(self, message: Answer | Failure | NodeEvent | LinkChange) -> None:
        if not self._writer.is_closing():
            self._writer.write(to_frame(message))


def _relay(node: str) -> Any:
    """The relay on a node, which outlives this process; created if there is none."""
    actor = ray.remote(Relay).options(
        name=f"relay-{node}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=1000,
        resources={f"{NODE_RESOURCE}{node}": PART},
    )
    return actor.remote()


def _resources(bundle: Bundle) -> dict[str, float]:
    wanted = {"GPU": float(bundle.gpus), "CPU": bundle.cpus, "memory": float(bundle.memory_bytes)}
    return {name: value for name, value in wanted.items() if value} | {f"{NODE_RESOURCE}{bundle.node}": PART}


async def _main(descriptor: int, address: str) -> None:
    connection = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=connection)
    await asyncio.to_thread(
        ray.init, address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING
    )
    await Bridge(reader, writer).run()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2]))
