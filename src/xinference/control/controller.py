"""The controller: the interface of the gateway and of the management API to all deployments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xinference.catalog.catalog_store import CatalogStore
from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control.catalog_updates import CatalogUpdates
from xinference.control.deployment_names import DeploymentNames
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.downloads import Downloads
from xinference.control.kept_launches import KeptLaunch, read_kept
from xinference.control.launch_progress import LaunchProgress
from xinference.control.launches import Launches
from xinference.control.loads import Loads
from xinference.control.node_drain import NodeDrain
from xinference.control.planned_launch import PlannedLaunch
from xinference.control.planner import Planner
from xinference.control.publisher import Publisher
from xinference.control.restarts import Restarts
from xinference.control.restoration import Restoration
from xinference.control.same_launch import Launched
from xinference.control.stop_notice import StopNotice
from xinference.control.store_writer import StoreWriter
from xinference.control.terminations import Terminations
from xinference.control.weights_store import WeightsStore
from xinference.deployments.admission import Admission
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.context import DeploymentContext, Ending, NodePlacer
from xinference.deployments.counts import Counts
from xinference.deployments.deployment import Deployment
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.hubs.base import Hub
from xinference.hubs.reachability import allowed_hubs
from xinference.hubs.registry import all_hubs
from xinference.launch.request import LaunchRequest
from xinference.nodes.cluster_packages import require_cluster_packages
from xinference.nodes.local import LocalNode
from xinference.nodes.node import Node
from xinference.nodes.peer_link import PeerLink
from xinference.planning.eviction import Bytes
from xinference.process.log_files import remove_old_logs
from xinference.routing.interfaces import NoLoad, ReplicaLoad
from xinference.routing.table import Route, RoutingTable
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.store.launch_history import LaunchHistory
from xinference.work_threads import LongWork

if TYPE_CHECKING:
    from xinference.cluster.members import Member
    from xinference.cluster.supervisor import Cluster
    from xinference.nodes.membership import NodeState

log = logging.getLogger(__name__)


class Controller:
    """Assembles the parts of the control side; the part in parentheses has the details of a method.

    Implements `Router` for the gateway.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        load: ReplicaLoad | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        """`load` counts the requests in flight at each replica; None: there is no gateway."""
        load, work = load or NoLoad(), LongWork(settings.hub_seconds)
        hubs: Mapping[str, Hub] = all_hubs(settings)
        self._settings = settings
        self._store = store
        self.event_log = self._events = EventLog(store)
        self.history = LaunchHistory(store)
        self.registrations = Registrations(settings.home, builtin_families())
        self.catalog = CatalogUpdates(settings, CatalogStore(settings.home, builtin_families()), self.registrations)
        self.counts = Counts()
        self.engines: Mapping[str, Engine] = all_engines()
        local = LocalNode(settings, hubs, self.engines, load, work)
        self.node: Node = local
        """This machine."""
        nodes: dict[str, Node] = {self.node.node_id: self.node}
        self.cluster = None if not settings.cluster else _cluster(settings, store, nodes, local, hubs)
        """The other machines; None: this one is the only one."""
        fetch = None if self.cluster is None else self.cluster.weights.fetch_version
        self.downloads = Downloads(hubs, self._events, work, self.counts, fetch)
        self.stop_notice = StopNotice()
        """Ends the waits of the management API when the server begins to stop."""
        self._publisher = publisher or Publisher()
        self._registry = registry = DeploymentRegistry(self._publisher, self.history)
        self._admission = Admission(settings, store, load, registry.working, self.node.host)
        self._writer = StoreWriter(store)
        self._terminations = Terminations(
            registry, store, self._writer, self._events, self.history, settings.log_dir, self._note_ended
        )
        placer = (
            None if self.cluster is None else self.cluster.placer(nodes, self.engines, self._admission.occupancy_on)
        )
        context = self._deployment_context(nodes, load, placer)
        self.planner = Planner(
            settings,
            hubs,
            self.engines,
            self.registrations,
            self._admission,
            work,
            local,
            nodes=nodes,
            placer=placer,
        )
        self.weights = WeightsStore(
            settings, hubs, self.registrations, self.planner, self.downloads, registry.working, work.files
        )
        self._names = DeploymentNames(registry, self._publisher, self._terminations, self.engines, work.files)
        self._restoration = Restoration(registry, self.planner, context, self.history)
        self._restarts = Restarts(registry, self._names, self._terminations, self.planner, context, self.history)
        self._loads = Loads(registry, self._publisher, self._restarts, settings)
        self._launches = Launches(
            registry, self._names, self._terminations, self._restarts, self.planner, context, self._writer, self.history
        )
        self._progress = LaunchProgress(registry, self._events, self.history)
        self._tasks: list[asyncio.Task[None]] = []
        self._drains = NodeDrain(registry.working)
        if self.cluster is not None:
            self.cluster.watch(self._note_node, self._move_from)
            self.cluster.note_reserved(self._admission.reserved_on)

    def _deployment_context(
        self, nodes: Mapping[str, Node], load: ReplicaLoad, placer: NodePlacer | None
    ) -> DeploymentContext:
        return DeploymentContext(
            self._settings,
            self._store,
            self._events,
            nodes,
            self.engines,
            self._registry.publish,
            load,
            self._admission,
            placer,
            None if self.cluster is None else self.cluster.weights,
            room=None if self.cluster is None else self.cluster.room(self._admission.reserved),
            counts=self.counts,
            launched=self._note_launched,
            failed=self._note_failed,
        )

    # -- for the gateway ------------------------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        return self._publisher.table

    def subscribe(self, published: Callable[[], None]) -> None:
        """Call `published` after each new table."""
        self._publisher.subscribe(published)

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        return await self._loads.ensure_ready(uid, deadline)

    # -- start and end --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the stored deployments: adopt running engines, start missing ones, and complete terminations."""
        self.catalog.load()
        self.registrations.load()
        known = self._store.replica_ids()
        if self.cluster is not None:  # the nodes say which replicas they have
            await self.cluster.start()
            if self._store.deployments():  # the engine of a model, and whether it gets GPUs, depend on the nodes
                await self.cluster.wait_for_nodes()
        await self._restoration.restore()
        await asyncio.to_thread(remove_old_logs, self._settings.log_dir, self._registry.log_paths())
        self._tasks = [
            asyncio.create_task(self._admission.run(), name="admission"),
            asyncio.create_task(self._writer.run(), name="notes of the store"),
            asyncio.create_task(self._restoration.warn_of_unknown_engines(known), name="unknown engines"),
        ]

    def begin_stop(self) -> None:
        """Tell everybody who waits for a load, a launch or an event that the server is stopping."""
        self.stop_notice.give()
        self._publisher.end_waits()
        self._events.end_followers()

    async def close(self, how: Ending) -> None:
        """End all tasks; ``stop`` also stops the engines, ``detach`` lets them run on for the next server."""
        for task in self._tasks:
            task.cancel()
        self._loads.close()
        self._restarts.close()
        await self._drains.close()
        if self.cluster is not None and how == "stop":
            self.cluster.begin_end()
        ends = [deployment.end(how) for deployment in self._registry]
        for result in await asyncio.gather(
            self.downloads.close(), *ends, *self._terminations.tasks, return_exceptions=True
        ):
            if isinstance(result, Exception):  # the failure of one deployment must not stop the end of the others
                log.error("the end of a deployment or download failed: %r", result)
        if self.cluster is not None:
            await self.cluster.close(ends_workers=how == "stop")

    # -- changes, for the management API --------------------------------------------------------------------

    async def plan(self, request: LaunchRequest, *, new: bool = False) -> PlannedLaunch:
        """Plan a launch without starting it (`Launches`)."""
        return await self._launches.plan(request, new=new)

    async def launch(self, request: LaunchRequest, *, new: bool = False, warnings: Iterable[str] = ()) -> Launched:
        """Store a deployment and start it (`Launches`)."""
        return await self._launches.launch(request, new=new, warnings=warnings)

    async def set_aliases(self, uid: str, aliases: Iterable[str]) -> None:
        """Replace the further names of a deployment (`DeploymentNames`)."""
        await self._names.set_aliases(uid, aliases)

    async def set_terms(self, uid: str, changes: Mapping[str, Any]) -> None:
        """Change when a model on demand is unloaded; at once, and for later servers too (`Loads`)."""
        await self._loads.set_terms(uid, changes)

    async def unload(self, uid: str) -> None:
        """Stop the engines of a deployment after their running requests; its row stays (`Loads`)."""
        await self._loads.unload(uid)

    async def load(self, uid: str, *, wait: bool = True) -> None:
        """Load a model that is unloaded, or start one that has failed (`Loads`)."""
        await self._loads.load(uid, wait=wait)

    async def restart(self, uid: str) -> None:
        """Stop a deployment after its running requests and start it again (`Restarts`)."""
        await self._restarts.restart(uid)

    async def reload(self, uid: str, options: Mapping[str, Any], seconds: float) -> None:
        """Begin a restart with other engine options (`Restarts`)."""
        await self._restarts.reload(uid, options, seconds)

    def reload_status(self, uid: str) -> dict[str, Any]:
        """The state of the last reload (`Restarts`)."""
        return self._restarts.reload_status(uid)

    async def terminate(self, uid: str) -> None:
        """Stop the engines of a deployment and delete it (`Terminations`)."""
        await self._terminations.terminate(uid)

    async def cancel(self, uid: str) -> None:
        """Cancel a launch that is not ready (`Terminations`)."""
        await self._terminations.cancel(uid)

    def set_restored(self, uid: str, *, restored: bool) -> None:
        """Set whether the next server restores a deployment; it runs on in either case.

        Raises:
            Problem: 404, with the running models; the row cannot be written.
        """
        self.deployment(uid)
        if uid not in self._terminations.uids:
            self._store.set_wanted(uid, restored)

    # -- state, for the management API ----------------------------------------------------------------------

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid (`DeploymentRegistry`)."""
        return self._registry.deployment(uid)

    def running(self, uid: str) -> Deployment:
        """One deployment by its uid, which is not a `BrokenDeployment` (`DeploymentRegistry`)."""
        return self._registry.running(uid)

    def uid_of(self, name: str) -> str:
        """The uid of the deployment with this uid or alias (`DeploymentRegistry`)."""
        return self._registry.uid_of(name)

    @property
    def is_cluster(self) -> bool:
        """Whether models may run on other machines."""
        return self.cluster is not None

    @property
    def log_dir(self) -> Path:
        """The folder of the engines' logs."""
        return self._settings.log_dir

    def has(self, deployment: Deployment | BrokenDeployment) -> bool:
        """Whether a deployment has not ended (`DeploymentRegistry`)."""
        return self._registry.has(deployment)

    def deployments(self) -> list[Deployment | BrokenDeployment]:
        """All deployments, oldest first."""
        return sorted(self._registry, key=lambda deployment: deployment.created)

    def reserved_memory(self) -> dict[str, Bytes]:
        """Uid of each deployment with reserved memory -> bytes of each device."""
        return self._admission.reserved()

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """All families that can be launched by their name."""
        return self.registrations.families

    def uids_of_family(self, family: str) -> list[str]:
        """The uids of a family's deployments, including the failed ones."""
        return [d.uid for d in self._registry.working() if d.plan.version.family.model_name == family]

    def kept_launches(self) -> list[KeptLaunch]:
        """The launches that the store keeps, oldest first, without those that are being terminated."""
        return [kept for kept in read_kept(self._store.deployments()) if kept.uid not in self._terminations.uids]

    def progress(self, uid: str) -> dict[str, Any]:
        """The progress of a launch in the form of the API (`LaunchProgress`)."""
        return self._progress.progress(uid)

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first (`LaunchProgress`)."""
        return self._progress.events(uid)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until its launch has ended (`LaunchProgress`)."""
        return self._progress.follow(uid)

    # -- for deployments ------------------------------------------------------------------------------------

    def _note_launched(self, uid: str) -> None:
        """Store that a launch is complete: its deployment stays in the list, whatever happens."""
        self._store.note_ran(uid)
        self.history.ready(uid)

    def _note_failed(self, uid: str) -> None:
        """Store a failure in the history. A launch that has never run leaves the list of deployments."""
        deployment = self._registry.get(uid)
        if isinstance(deployment, Deployment):
            self.history.ended(uid, deployment.problem)
            if not deployment.snapshot.ran:
                self._terminations.begin(deployment)

    def _note_node(self, member: Member, before: NodeState) -> None:
        """The state of a node has changed."""
        if member.state == "DRAINING":
            self._drains.begin(member.node_id)
        else:
            self._drains.end(member.node_id)

    def _move_from(self, member: Member) -> None:
        """A worker ends, and waits: let it leave once its replicas are ready elsewhere."""
        self._drains.move_all(member.node_id, member.node.let_leave)

    def _note_ended(self, uid: str) -> None:
        self._restarts.forget(uid)


def _cluster(
    settings: Settings, store: Store, nodes: dict[str, Node], local: LocalNode, hubs: Mapping[str, Hub]
) -> Cluster:
    """The other machines.

    Raises:
        Problem: 500 ``cluster_not_installed``, ``ray_not_installed``; any problem of `Cluster`.
    """
    require_cluster_packages(ray=bool(settings.ray_address))
    from xinference.cluster.supervisor import Cluster  # a server on one machine does without it

    cluster = Cluster(settings, store, nodes, allowed_hubs(hubs, settings))
    local.peers = PeerLink(cluster.identity.client_context, cluster.offers)
    return cluster
