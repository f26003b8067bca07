"""The messages to the owner of a deployment. A reply is a Future that the owner resolves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.deployments.context import Ending
from xinference.deployments.preparation import Runnable, Weights
from xinference.deployments.snapshot import Stage
from xinference.errors import Problem
from xinference.launch.place import Place
from xinference.launch.plan import SizedPlan
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import ReplicaLike
from xinference.process.command import Exit


@dataclass(frozen=True)
class Begin:
    """Adopt the replicas of an earlier server, or prepare the deployment."""

    adopted: asyncio.Future[int]
    """The number of replicas of an earlier server that are running."""


@dataclass(frozen=True)
class StageBegan:
    """The preparation has reached a stage; `content` is the text of its event, if it has one."""

    stage: Stage
    content: str | None = None


@dataclass(frozen=True)
class WeightsRead:
    """The weights are available on this machine, and their header has been read."""

    weights: Weights


@dataclass(frozen=True)
class Prepared:
    """The weights have a format that the engine loads, and the engine's environment is installed."""

    runnable: Runnable


@dataclass(frozen=True)
class PreparationFailed:
    """The preparation has stopped with a problem."""

    problem: Problem


@dataclass(frozen=True)
class Granted:
    """The memory of this plan is reserved for the deployment."""

    plan: SizedPlan


@dataclass(frozen=True)
class Refused:
    """The admission has refused to reserve memory for the deployment."""

    problem: Problem


@dataclass(frozen=True)
class Requested:
    """A request waits for an on-demand model."""

    refusals: int
    """The number of refused loads at the time of the request."""


@dataclass(frozen=True)
class Abandoned:
    """The last waiting request has ended."""


@dataclass(frozen=True)
class Evict:
    """Unload the model after its last answer; with `only_idle`, decline while the model has requests."""

    reason: str
    only_idle: bool


@dataclass(frozen=True)
class Drained:
    """The engines have sent their last answers."""


@dataclass(frozen=True)
class ReplicaChanged:
    """A replica's process has a new snapshot."""


@dataclass(frozen=True)
class ReplicaReady:
    """A replica is ready to answer requests."""

    number: int
    replica: ReplicaLike
    used: MemoryUse | None
    """Memory that the replica uses; None: it could not be measured."""


@dataclass(frozen=True)
class ReplicaExited:
    """A replica's process has exited."""

    number: int
    replica: ReplicaLike
    exit: Exit | None
    """None: the replica had no process."""
    problem: Problem | None = None
    """The reason why the replica did not become ready; None: it was ready."""
    had_requests: bool = False
    """Requests were in flight when it exited: one of them may be the cause."""


@dataclass(frozen=True)
class RestartDue:
    """A replica without a process must be started now."""

    number: int
    python: Path | None = None
    """The engine's interpreter, if this message follows a search for it."""


@dataclass(frozen=True)
class Waits:
    """A replica without a process has no place; its place is looked for again after a while."""

    number: int
    problem: Problem | None
    """None: it has a place now, which is prepared."""


@dataclass(frozen=True)
class Placed:
    """A replica without a process has a place, where weights and environment are prepared."""

    number: int
    place: Place


@dataclass(frozen=True)
class ReplicaDrained:
    """A replica that is being removed has sent its last answer, or its `drain_seconds` have passed."""

    number: int
    replica: ReplicaLike
    in_time: bool


@dataclass(frozen=True)
class ReplicasFailed:
    """The replicas as a whole have failed: the first start failed, or none of them is started again."""

    problem: Problem


@dataclass(frozen=True)
class AddReplica:
    """Start an additional replica on these GPUs, or on devices with enough memory."""

    gpu_idx: tuple[int, ...]
    number: asyncio.Future[int]
    """Reply: the number of the replica, after its request is stored."""
    ready: asyncio.Future[None]
    """Reply: the replica is ready."""
    is_stored: bool = True
    """Whether a later server runs it, too. A successor is not stored: its predecessor is removed when it is ready."""


@dataclass(frozen=True)
class RemoveReplica:
    """Stop one replica after its last answer."""

    number: int
    remaining: asyncio.Future[int]
    """Reply: the number of replicas that remain, after the replica has exited."""


@dataclass(frozen=True)
class Unload:
    """A user unloads the model: stop its engines after their running requests."""

    done: asyncio.Future[None]
    """Reply: the engines have ended and their memory is released."""
    for_restart: bool = False
    """The model is loaded again at once: requests may wait, and the change is not stored."""
    seconds: float | None = None
    """Maximum time for the last answers; None: `drain_seconds`."""


@dataclass(frozen=True)
class SetAliases:
    """Give the deployment these further names in place of its earlier ones."""

    aliases: tuple[str, ...]
    done: asyncio.Future[None]
    """Reply: the change is stored and published."""


@dataclass(frozen=True)
class SetTerms:
    """Change the conditions under which the model on demand is unloaded."""

    changes: Mapping[str, Any]
    """Fields of the launch request: `ttl`, `pin`, `priority`."""
    done: asyncio.Future[None]
    """Reply: the change is stored, and the admission knows it."""


@dataclass(frozen=True)
class Defect:
    """A helper task raised an exception other than `Problem`: a defect of xinference."""

    error: Exception


@dataclass(frozen=True)
class End:
    """End the owner task."""

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
    | Waits
    | Placed
    | ReplicaDrained
    | ReplicasFailed
    | AddReplica
    | RemoveReplica
    | Unload
    | SetAliases
    | SetTerms
    | Defect
    | End
)
