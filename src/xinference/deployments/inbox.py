"""The messages to the owner of a deployment, and its inbox. A reply is a Future that the owner sets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.deployments.context import Ending
from xinference.deployments.engine_starter import ReplicaProcess
from xinference.deployments.measurement import Used
from xinference.deployments.preparation import Runnable, Weights
from xinference.deployments.snapshot import Stage
from xinference.errors import Problem
from xinference.launch.plan import SizedPlan
from xinference.process.command import Exit


@dataclass(frozen=True)
class Begin:
    """Take up what an earlier server left, and make what should run."""

    adopted: asyncio.Future[int]
    """The number of replicas of an earlier server that are running."""


@dataclass(frozen=True)
class StageBegan:
    """The preparation has reached a stage; `content` is said among the events."""

    stage: Stage
    content: str | None = None


@dataclass(frozen=True)
class WeightsRead:
    """The weights are here, and their header has been read."""

    weights: Weights


@dataclass(frozen=True)
class Prepared:
    """The weights can be loaded, and the engine's environment is installed."""

    runnable: Runnable


@dataclass(frozen=True)
class PreparationFailed:
    problem: Problem


@dataclass(frozen=True)
class Granted:
    """The memory of this plan is its own."""

    plan: SizedPlan


@dataclass(frozen=True)
class Refused:
    """It gets no memory."""

    problem: Problem


@dataclass(frozen=True)
class Requested:
    """A request waits for a model on demand, and has been told of so many refusals."""

    refusals: int


@dataclass(frozen=True)
class Abandoned:
    """No request waits any more."""


@dataclass(frozen=True)
class Evict:
    """Leave after the last answer; with `only_idle` not if a request is there."""

    reason: str
    only_idle: bool


@dataclass(frozen=True)
class Drained:
    """The last answer has been sent."""


@dataclass(frozen=True)
class ReplicaChanged:
    """A replica's process has a new snapshot."""


@dataclass(frozen=True)
class ReplicaReady:
    """A replica answers."""

    number: int
    replica: ReplicaProcess
    used: Used | None
    """Memory that it takes; None: it could not be measured."""


@dataclass(frozen=True)
class ReplicaExited:
    """A replica's process has ended."""

    number: int
    replica: ReplicaProcess
    exit: Exit | None
    """None: it had no process."""
    problem: Problem | None = None
    """Why it did not become ready; None: it was ready."""


@dataclass(frozen=True)
class RestartDue:
    """A replica without a process is to be started."""

    number: int
    python: Path | None = None
    """The engine's interpreter, if it had to be looked for."""


@dataclass(frozen=True)
class ReplicaDrained:
    """The last answer of a replica that is removed has been sent, or its time for that is over."""

    number: int
    replica: ReplicaProcess
    in_time: bool


@dataclass(frozen=True)
class ReplicasFailed:
    """The first start of a replica failed, or the last replica was given up: what the replicas report in a turn."""

    problem: Problem


@dataclass(frozen=True)
class AddReplica:
    """Start one replica more on these GPUs, or where it fits."""

    gpu_idx: tuple[int, ...]
    number: asyncio.Future[int]
    """Its number, once its row is written."""
    ready: asyncio.Future[None]


@dataclass(frozen=True)
class RemoveReplica:
    """End one replica after its last answer."""

    number: int
    left: asyncio.Future[int]
    """How many stay, once it has ended."""


@dataclass(frozen=True)
class Defect:
    """A helper task failed as it never should."""

    error: Exception


@dataclass(frozen=True)
class End:
    how: Ending


Message = (
    Begin
    | StageBegan
    | WeightsRead
    | Prepared
    | PreparationFailed
    | Granted
    | Refused
    | Requested
    | Abandoned
    | Evict
    | Drained
    | ReplicaChanged
    | ReplicaReady
    | ReplicaExited
    | RestartDue
    | ReplicaDrained
    | ReplicasFailed
    | AddReplica
    | RemoveReplica
    | Defect
    | End
)


class Inbox:
    """Keeps the messages in the order in which they came, and runs the owner's helper tasks.

    A helper only puts messages. One that raises is a defect of ours, which the owner is told as `Defect`.
    """

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._helpers: set[asyncio.Task[None]] = set()

    def put(self, message: Message) -> None:
        self._messages.put_nowait(message)

    async def get(self) -> Message:
        """The next message, once there is one."""
        return await self._messages.get()

    def rest(self) -> list[Message]:
        """Take out what is there now."""
        return [self._messages.get_nowait() for _ in range(self._messages.qsize())]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a helper task."""
        task = asyncio.create_task(self._run(work))
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def end_helpers(self) -> None:
        """Cancel the helper tasks, and wait for them."""
        helpers = tuple(self._helpers)
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- the owner logs it and fails
            self.put(Defect(error))


def answer(reply: asyncio.Future[Any], with_: object) -> None:
    """Set a reply, to an exception if it is a `Problem`; nothing if whoever asked has gone."""
    if reply.done():
        return
    if isinstance(with_, Problem):
        reply.set_exception(with_)
    else:
        reply.set_result(with_)
