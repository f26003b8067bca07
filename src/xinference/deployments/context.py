"""The context of every deployment: the server's services, the memory admission, and the ways to end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from xinference.config import Settings
from xinference.deployments.counts import Counts
from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.nodes.node import FetchReport, Node
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
class NodesView:
    """What is known of the nodes on which a launch may be placed, at one moment."""

    hosts: Mapping[str, Host]
    """The resources of each node that has answered."""
    with_weights: Mapping[str, Path]
    """The nodes that have the launch's weights, and the path there."""


class NodePlacer(Protocol):
    """Chooses the nodes of launches. A server on one machine has none."""

    def check(self, request: LaunchRequest) -> None:
        """Refuse a request for nodes on which it is not placed.

        Raises:
            Problem: 400.
        """
        ...

    def takes(self, launch: LaunchPlan) -> bool:
        """Whether a launch may be placed on any node; if not, it runs on the server's own machine."""
        ...

    def is_usable(self, node_id: str) -> bool:
        """Whether a replica may be started on a node now."""
        ...

    def allowed(self, request: LaunchRequest) -> list[str]:
        """The usable nodes that a request allows."""
        ...

    async def view(self, launch: ResolvedLaunch) -> NodesView:
        """Ask all usable nodes for their resources and for the weights of a launch."""
        ...

    def now(self, view: NodesView) -> NodesView:
        """An earlier view with the newest reports of the usable nodes; asks no node."""
        ...

    def best(self, view: NodesView, request: LaunchRequest) -> str:
        """The node with the most free memory of those that have the weights, or of all, for the first steps.

        Raises:
            Problem: 503 ``no_node``.
        """
        ...

    def size(
        self, launch: ResolvedLaunch, path: Path, shape: ModelShape, notes: tuple[str, ...], view: NodesView
    ) -> SizedPlan:
        """Choose the node, the devices, the context and the slots of each replica.

        Raises:
            Problem: 400 ``does_not_fit``, 503 ``no_node``; both name each node and what it lacks.
        """
        ...


class WeightsFetcher(Protocol):
    """Gets weights for the nodes of a cluster. A server on one machine has none."""

    async def fetch(self, node_id: str, launch: ResolvedLaunch, report: FetchReport) -> Path:
        """The path of a launch's weights on a node, which gets them if it does not have them.

        Raises:
            Problem: as `Node.fetch_weights`; 503 ``node_unknown``.
        """
        ...


class RoomRequests(Protocol):
    """Asks for further nodes when a launch has no room. `name` is that of the launch, before it has a uid."""

    seconds: float
    """How long a launch waits for a node."""

    def ask(self, name: str, request: LaunchRequest) -> None:
        """Ask for a node, or again."""
        ...

    async def wait_for_node(self, name: str, seconds: float) -> bool:
        """Wait until a node has come since the last `ask`; False: none has, within `seconds`."""
        ...

    def keep(self, name: str, uid: str) -> None:
        """The launch has room, and is the deployment `uid`: the node is kept for it until its memory is reserved."""
        ...

    def end(self, name: str) -> None:
        """The launch wants nothing any more."""
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
    placer: NodePlacer | None = None
    """Chooses nodes; None: this machine is the only one."""
    weights: WeightsFetcher | None = None
    """Gets weights for nodes; None: this machine is the only one."""
    room: RoomRequests | None = None
    """Asks for further nodes; None: nobody can be asked."""
    counts: Counts = field(default_factory=Counts)
    """Counts what happens to the deployments."""
    launched: Callable[[str], None] = lambda uid: None
    """Called with the uid of a deployment whose launch is complete."""
    failed: Callable[[str], None] = lambda uid: None
    """Called with the uid of a deployment that has failed, after its snapshot has the problem."""


Ending = Literal["terminate", "stop", "detach"]
"""``terminate`` and ``stop`` stop the engines; ``detach`` lets them run on for a later server."""
