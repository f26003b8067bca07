"""The context of every deployment: the server's services, the memory admission, and the ways to end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from xinference.config import Settings
from xinference.deployments.counts import Counts
from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.nodes.node import Node
from xinference.planning.admission import Candidate
from xinference.planning.occupancy import Occupancy
from xinference.routing.interfaces import ReplicaLoad
from xinference.store.database import Store
from xinference.store.event_log import EventLog


class MemoryHolder(Protocol):
    """The part of a deployment that the admission uses."""

    @property
    def uid(self) -> str: ...

    @property
    def snapshot(self) -> DeploymentSnapshot:
        """The current state of the deployment."""
        ...

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the deployment to be loaded."""
        ...

    def grant(self, plan: SizedPlan) -> None:
        """The memory of this plan is reserved for the deployment."""
        ...

    def refuse(self, problem: Problem) -> None:
        """The admission reserves no memory for the deployment."""
        ...

    def evict(self, reason: str, *, only_idle: bool) -> None:
        """Unload the model after its last answer; with `only_idle`, the deployment declines while it is in use."""
        ...


class MemoryAdmission(Protocol):
    """The part of the memory admission that a deployment uses."""

    def occupancy_of_others(self, plan: LaunchPlan) -> Occupancy:
        """The memory reserved for all deployments except that of the plan."""
        ...

    def occupancy_for(self, plan: LaunchPlan) -> Occupancy:
        """The memory reserved for all deployments except that of `plan` and those that can be evicted for it."""
        ...

    def hold(self, uid: str, plan: SizedPlan) -> None:
        """Reserve the memory of `plan` for `uid` at once, without the queue."""
        ...

    def release(self, uid: str) -> None:
        """Release the memory of `uid`, and remove `uid` from the queue."""
        ...

    def ask(self, candidate: Candidate[SizedPlan]) -> None:
        """Add a candidate to the queue for memory. The reply is `MemoryHolder.grant` or `MemoryHolder.refuse`."""
        ...

    def withdraw(self, uid: str) -> None:
        """No request waits for `uid` any more. If it is still in the queue, it is refused with ``nobody_waits``."""
        ...

    def declined(self, uid: str) -> None:
        """`uid` declines its eviction, because it is in use."""
        ...

    def changed(self) -> None:
        """Report that the state of a deployment has changed."""
        ...


@dataclass(frozen=True)
class DeploymentContext:
    """The services of the server that every deployment uses."""

    settings: Settings
    store: Store
    events: EventLog
    nodes: Mapping[str, Node]
    """The machines by their ids; this one is `hosts.LOCAL_NODE`."""
    engines: Mapping[str, Engine]
    publish: Callable[[], None]
    """Publishes a new routing table."""
    load: ReplicaLoad
    """Counts the requests in flight at each replica."""
    admission: MemoryAdmission
    counts: Counts = field(default_factory=Counts)
    """Counts what happens to the deployments."""
    launched: Callable[[str], None] = lambda uid: None
    """Called with the uid of a deployment whose launch is complete."""
    failed: Callable[[str], None] = lambda uid: None
    """Called with the uid of a deployment that has failed, after its snapshot has the problem."""


Ending = Literal["terminate", "stop", "detach"]
"""``terminate`` and ``stop`` stop the engines; ``detach`` lets them run on for a later server."""
