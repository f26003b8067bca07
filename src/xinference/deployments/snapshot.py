"""A deployment at one moment: immutable values that its owner replaces and everybody reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from pathlib import Path

from xinference.deployments.measurement import Used
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState


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
    """The states of a model on demand."""

    UNLOADED = auto()
    """It holds no memory, and no request waits for it."""
    QUEUED = auto()
    """A request waits for it; it is prepared if it has to be, and asks for memory."""
    LOADING = auto()
    """It was granted memory; no replica has answered yet."""
    LOADED = auto()
    """A replica has answered."""
    DRAINING = auto()
    """No request goes to it any more; it is unloaded after its last answer."""

    @property
    def holds_memory(self) -> bool:
        return self in (Residency.LOADING, Residency.LOADED, Residency.DRAINING)


@dataclass(frozen=True)
class OnDemandTerms:
    """When a model on demand may be unloaded."""

    ttl: float
    """Seconds without a request after which it is; 0: only when its memory is needed."""
    pinned: bool
    """It does not leave for another model."""
    priority: int
    """The least leaves first."""


@dataclass(frozen=True)
class ReplicaView:
    """One replica that there should be."""

    number: int
    process: ReplicaSnapshot | None = None
    """None: it has no process now."""
    measured: bool = False
    """It has answered, and its memory has been measured: requests may go to it."""
    leaving: bool = False
    """It is being removed, and no request goes to it any more."""
    problem: Problem | None = None
    """Why it is not started again."""

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
    """Why it has failed."""
    launching: bool = True
    """It is on its way to its first answer, or, on demand, to be loadable."""
    was_ready: bool = False
    """It has answered since it was loaded: requests may wait while it is restarted."""
    ending: bool = False
    used: Used | None = None
    """Memory that its last measured replica took."""
    residency: Residency | None = None
    """None: it is not on demand."""
    terms: OnDemandTerms | None = None
    """None: it is not on demand."""
    ready_since: float = 0.0
    """When it was loaded, by `time.monotonic`."""
    refusals: int = 0
    """Loads that have failed."""
    refusal: Problem | None = None
    """Why the last of them did."""
    replicas: tuple[ReplicaView, ...] = ()
    last_log: Path | None = None
    """The output of the replica that ended last."""

    @property
    def launch(self) -> ResolvedLaunch:
        """The plan without its size."""
        return self.plan.launch if isinstance(self.plan, SizedPlan) else self.plan

    @property
    def sized(self) -> SizedPlan | None:
        """The plan with its size; None: it is not known yet."""
        return self.plan if isinstance(self.plan, SizedPlan) else None

    @property
    def ready(self) -> bool:
        """Whether a replica answers."""
        return any(replica.ready for replica in self.replicas)

    @property
    def running(self) -> tuple[ReplicaSnapshot, ...]:
        """The replicas that have a process."""
        return tuple(replica.process for replica in self.replicas if replica.process is not None)

    @property
    def replica_ids(self) -> tuple[str, ...]:
        """The names by which the gateway counts their requests."""
        return tuple(process.replica_id for process in self.running)
