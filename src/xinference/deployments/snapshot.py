"""A deployment at one moment: immutable values that its owner replaces and all other code reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.nodes.memory_use import MemoryUse
from xinference.process.node_log import EngineLog
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.table import Crash


class Status(StrEnum):
    """The condition of a deployment or of a replica, as the API names it."""

    CREATING = "CREATING"
    LOADING = "LOADING"
    READY = "READY"
    RECOVERING = "RECOVERING"
    UNLOADING = "UNLOADING"
    UNLOADED = "UNLOADED"
    ERROR = "ERROR"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"


class Stage(StrEnum):
    """The step that a deployment has reached, as the API names it."""

    PENDING = "pending"
    PLAN = "plan"
    FETCH = "fetch"
    CONVERT = "convert"
    ENVIRONMENT = "environment"
    ROOM = "room"
    START = "start"
    HEALTH = "health"
    READY = "ready"
    RESTART = "restart"
    UNLOAD = "unload"
    UNLOADED = "unloaded"
    STOP = "stop"
    FAILED = "failed"


class Residency(Enum):
    """The residency states of an on-demand model."""

    UNLOADED = auto()
    """No memory is reserved for the model, and no request waits for it."""
    QUEUED = auto()
    """A request waits for the model, which is being prepared or waits for memory."""
    LOADING = auto()
    """Memory is granted; no replica is ready yet."""
    LOADED = auto()
    """A replica has been ready since the load."""
    DRAINING = auto()
    """The model gets no new requests, and is unloaded after its last answer."""

    @property
    def holds_memory(self) -> bool:
        return self in (Residency.LOADING, Residency.LOADED, Residency.DRAINING)


@dataclass(frozen=True)
class OnDemandTerms:
    """The conditions for unloading an on-demand model."""

    ttl: float
    """Seconds without a request after which the model is unloaded; 0: no time limit."""
    pinned: bool
    """The model is not evicted for another model."""
    priority: int
    """The model with the lowest priority is evicted first."""


@dataclass(frozen=True)
class ReplicaView:
    """One replica of the deployment, with or without a process."""

    number: int
    process: ReplicaSnapshot | None = None
    """None: the replica has no process now."""
    measured: bool = False
    """The replica has become ready and its memory has been measured: it may get requests."""
    removing: bool = False
    """The replica is being removed and gets no new requests."""
    problem: Problem | None = None
    """The reason why the replica is not started again."""
    waits: Problem | None = None
    """The reason why the replica is not started now: no machine has a place for it."""

    @property
    def ready(self) -> bool:
        return self.measured and self.process is not None and self.process.state is ReplicaState.READY


@dataclass(frozen=True)
class DeploymentSnapshot:
    """A deployment at one moment."""

    uid: str
    plan: LaunchPlan
    created: float
    """Seconds since the epoch."""
    status: Status = Status.CREATING
    stage: Stage = Stage.PENDING
    problem: Problem | None = None
    """The reason why the deployment has failed."""
    launching: bool = True
    """The launch is not complete: no replica has been ready, or an on-demand model is not prepared."""
    was_ready: bool = False
    """A replica has been ready since the load: requests may wait while it is restarted."""
    ran: bool = False
    """Its launch was complete once, under this server or an earlier one."""
    ending: bool = False
    """The owner task is ending."""
    unloaded: bool = False
    """A user has unloaded the model, which is not on demand: it gets no requests, and its engines are stopped."""
    restarting: bool = False
    """The deployment is stopped and started again: requests may wait."""
    used: MemoryUse | None = None
    """Memory use of the replica that was measured last."""
    residency: Residency | None = None
    """None: the deployment is not on demand."""
    terms: OnDemandTerms | None = None
    """None: the deployment is not on demand."""
    ready_since: float = 0.0
    """Time at which the first replica became ready after the load, by `time.monotonic`."""
    refusals: int = 0
    """Number of loads that have failed."""
    refusal: Problem | None = None
    """The reason of the last failed load."""
    replicas: tuple[ReplicaView, ...] = ()
    last_log: EngineLog | None = None
    """The log of the replica that exited last."""
    crashes: tuple[Crash, ...] = ()
    """The engines that ended last without a request of the server, oldest first."""

    @property
    def launch(self) -> ResolvedLaunch:
        """The plan without its size."""
        return self.plan.launch if isinstance(self.plan, SizedPlan) else self.plan

    @property
    def sized(self) -> SizedPlan | None:
        """The plan with its size; None: the size is not known yet."""
        return self.plan if isinstance(self.plan, SizedPlan) else None

    @property
    def ready(self) -> bool:
        """Whether a replica is ready."""
        return any(replica.ready for replica in self.replicas)

    @property
    def running(self) -> tuple[ReplicaSnapshot, ...]:
        """The processes of the replicas that have one."""
        return tuple(replica.process for replica in self.replicas if replica.process is not None)

    @property
    def replica_ids(self) -> tuple[str, ...]:
        """The ids of these processes, by which the gateway counts requests."""
        return tuple(process.replica_id for process in self.running)
