"""The context of every deployment: the server's services, the memory admission, and the ways to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from xinference.config import Settings
from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.admission import Candidate
from xinference.planning.occupancy import Occupancy
from xinference.routing.interfaces import ReplicaLoad
from xinference.store.database import Store
from xinference.store.event_log import EventLog


class MemoryHolder(Protocol):
    """A deployment, seen from the admission."""

    @property
    def uid(self) -> str: ...

    @property
    def snapshot(self) -> DeploymentSnapshot:
        """What it does now."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for it to be loaded."""
        ...

    def grant(self, plan: SizedPlan) -> None:
        """The memory of this plan is its own from now on."""
        ...

    def refuse(self, problem: Problem) -> None:
        """It gets no memory."""
        ...

    def evict(self, reason: str, *, only_idle: bool) -> None:
        """It is to leave after its last answer; with `only_idle` it may decline if it is in use."""
        ...


class MemoryAdmission(Protocol):
    """The memory of all deployments, seen from one of them."""

    def occupancy_of_others(self, plan: LaunchPlan) -> Occupancy:
        """Memory that was promised to all but the plan's deployment."""
        ...

    def occupancy_for(self, plan: LaunchPlan) -> Occupancy:
        """The same as if those had left that would leave for `plan`."""
        ...

    def hold(self, uid: str, plan: SizedPlan) -> None:
        """`uid` holds the memory of `plan` without having asked for it."""
        ...

    def release(self, uid: str) -> None:
        """`uid` holds nothing and asks for nothing any more."""
        ...

    def ask(self, candidate: Candidate[SizedPlan]) -> None:
        """Ask for memory; `MemoryHolder.grant` or `MemoryHolder.refuse` answers."""
        ...

    def withdraw(self, uid: str) -> None:
        """Nobody waits for `uid` any more; if it has no answer yet, the answer is ``nobody_waits``."""
        ...

    def declined(self, uid: str) -> None:
        """`uid` was to leave if it was idle, and is in use."""
        ...

    def changed(self) -> None:
        """The state of a deployment is another one, such as ready."""
        ...


@dataclass(frozen=True)
class DeploymentContext:
    """What every deployment works with."""

    settings: Settings
    store: Store
    events: EventLog
    hubs: Mapping[str, Hub]
    engines: Mapping[str, Engine]
    publish: Callable[[], None]
    """Publishes a new routing table."""
    load: ReplicaLoad
    """Requests at each replica."""
    admission: MemoryAdmission


Ending = Literal["terminate", "stop", "detach"]
"""``terminate`` and ``stop`` end the engines, ``detach`` leaves them for a successor."""
