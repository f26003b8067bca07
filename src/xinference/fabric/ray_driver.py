"""The driver: the process that is our job in a Ray cluster that somebody else has started.

It starts a worker beside Ray on each node that the server names, and reserves what our replicas use there. Nothing of
it outlives it in Ray. It ends when the server closes its stream, and when Ray's head is lost: the server starts it
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import msgspec
import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from xinference.fabric import ray_starter
from xinference.fabric.frames import Answer, Failure, FrameError, read_frame, write_frame
from xinference.fabric.ray_groups import RayGroups
from xinference.fabric.ray_messages import RayNodeEntry, RayState, StartWorker, Wishes
from xinference.fabric.ray_problems import lost_of, unreachable
from xinference.task_set import TaskSet

log = logging.getLogger(__name__)
NAMESPACE = "xinference"
#: Interval at which Ray is asked for its nodes.
POLL_SECONDS = 1.0
#: Maximum time in which Ray's head lists its nodes.
HEAD_SECONDS = 10.0
#: Maximum time of the task that finds or starts a worker. Ray waits for a worker process of its own first.
TASK_SECONDS = 120.0
#: Maximum time for a connection to an address of Ray, and until Ray has taken the driver.
CONNECT_SECONDS, INIT_SECONDS = 5.0, 60.0
#: The exit status of a driver that cannot use Ray.
LOST = 3
_DECODER = msgspec.msgpack.Decoder(StartWorker | Wishes)


class Driver:
    """Does what the server asks for in a Ray cluster."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._groups = RayGroups(self._send_state, self._node_ids)
        self._address = ray.util.get_node_ip_address()
        self._nodes: tuple[RayNodeEntry, ...] | None = None
        self._tasks = TaskSet()

    async def run(self) -> None:
        """Work until the server closes its end."""
        for work in (self._watch_nodes(), self._groups.run()):
            self._tasks.start(self._or_end(work))
        try:
            while (message := await read_frame(self._reader, _DECODER)) is not None:
                if isinstance(message, Wishes):
                    self._groups.wish(message)
                else:
                    self._tasks.start(self._start_worker(message))
        except FrameError as error:
            log.warning("the server sent what is no message: %s", error)
        finally:
            self._tasks.cancel()

    async def _or_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work that never ends; its failure ends this process, and the server starts it again."""
        try:
            await work
        except Exception:  # a defect, or any error of Ray: what has failed would be missing without a word
            log.exception("the driver ends")
            os._exit(LOST)

    async def _start_worker(self, message: StartWorker) -> None:
        strategy = NodeAffinitySchedulingStrategy(message.ray_node, soft=False)
        # With one call for each, no idle process of ours stays in Ray.
        task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(ray_starter.find_or_start)
        named = task.options(name="xinference worker", scheduling_strategy=strategy)
        try:
            async with asyncio.timeout(TASK_SECONDS):
                report = await named.remote(msgspec.to_builtins(message.order))
        except TimeoutError:
            self._send(Failure(message.number, "timeout", f"Ray has not run a task there within {TASK_SECONDS:.0f} s"))
        except Exception as error:  # that of the task, whatever it is, or of Ray
            log.warning("the worker of %s", message.ray_node, exc_info=True)
            self._send(Failure(message.number, "ray", _last_line(error)))
        else:
            self._send(Answer(message.number, msgspec.msgpack.encode(report)))

    async def _watch_nodes(self) -> None:
        while True:
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    nodes = tuple(_entry(node) for node in await asyncio.to_thread(ray.nodes) if node["Alive"])
            except (TimeoutError, RayError) as error:
                # A driver whose head was away hangs, also when the head is back: only a new one gets on.
                log.warning("Ray's head does not answer (%r): the driver ends", error)
                self._send(unreachable(f"its head has not answered within {HEAD_SECONDS:.0f} s"))
                await self._writer.drain()
                os._exit(LOST)
            if nodes != self._nodes:
                self._nodes = nodes
                self._send_state()
            await asyncio.sleep(POLL_SECONDS)

    def _send_state(self) -> None:
        if self._nodes is not None:
            self._send(RayState(self._address, ray.__version__, self._nodes, dict(self._groups.lacking)))

    def _node_ids(self) -> list[str]:
        return [node.ray_node for node in self._nodes or ()]

    def _send(self, message: Any) -> None:
        write_frame(self._writer, message)


def _entry(node: dict[str, Any]) -> RayNodeEntry:
    resources = {name: float(value) for name, value in node["Resources"].items() if not name.startswith("node:")}
    return RayNodeEntry(
        node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"], resources, dict(node["Labels"] or {})
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:600] if lines else type(error).__name__


async def _check_address(address: str) -> None:
    """Connect to the address, since Ray itself tries for a minute, and then may end this process.

    Raises:
        OSError: nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or not port.isdigit():
        return
    async with asyncio.timeout(CONNECT_SECONDS):
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()


async def _main(descriptor: int, address: str) -> int:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    try:
        await _check_address(address)
        async with asyncio.timeout(INIT_SECONDS):
            await asyncio.to_thread(_connect, address)
    except Exception as error:  # Ray raises errors of many types here
        log.warning("Ray at %s cannot be used", address, exc_info=True)
        write_frame(writer, lost_of(address, error))
        await writer.drain()
        return LOST
    cloudpickle.register_pickle_by_value(ray_starter)
    await Driver(reader, writer).run()
    ray.shutdown()
    return 0


def _connect(address: str) -> None:
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    status = asyncio.run(_main(int(sys.argv[1]), sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads of Ray may wait for a head that is gone
