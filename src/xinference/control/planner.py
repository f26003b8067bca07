"""Gathers the facts for planning, and runs the phases of a launch: draft, resolve, size."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from xinference.catalog.models import ModelFamily, Source
from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.control.disk_check import check_disk
from xinference.control.forecaster import ExpectedWeights, Forecaster
from xinference.control.hub_choice import HubChooser
from xinference.control.node_facts import planning_host, size_on_nodes
from xinference.control.option_tables import OptionTables
from xinference.control.resolver import ModelResolver
from xinference.deployments.context import NodePlacer, NodesView
from xinference.engines.base import Engine
from xinference.environments.environments import EnvironmentEntry, Environments
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hubs.base import Hub
from xinference.hubs.local_files import resolve_local
from xinference.launch import tuning
from xinference.launch.forecast import DiskNeed, Forecast, ShapeSource
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.launch.tuning_file import read_tunings
from xinference.nodes.node import Node
from xinference.planning.alternatives import Refused, alternatives, smaller_downloads, unload_groups
from xinference.planning.eviction import Bytes
from xinference.planning.facts import Facts
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.plan import draft_launch, resolve_launch
from xinference.planning.sizing import size_launch
from xinference.weights.adapter_files import check_adapters_fit
from xinference.work_threads import LongWork

if TYPE_CHECKING:
    from xinference.planning.fits import Fit, FitFinder

#: Source of a refused launch's numbers -> a sentence for the refusal.
_SOURCE_TEXTS: Mapping[ShapeSource, str] = {
    "file header": "The numbers are those of the file on the hub.",
    "registry": "The numbers are those of the registry.",
    "estimate": "The numbers are a rough estimate from the size and the quantization.",
}


class ReservedMemory(Protocol):
    """The memory that is reserved for the models of this machine."""

    def occupancy_for(self, plan: ResolvedLaunch, without: Collection[str] = ()) -> Occupancy:
        """The memory of all other models, except those that can be evicted for `plan` and those in `without`."""
        ...

    def occupancy(self, without: Collection[str] = ()) -> Occupancy:
        """The same for a launch of any model that does not run, without the correction by measurements."""
        ...

    def reserved(self) -> Mapping[str, Bytes]:
        """Uid of each model with reserved memory -> bytes of each device."""
        ...

    def corrections(self) -> Mapping[tuple[str, str], int]:
        """Version id and engine -> the correction of a plan on the CPU by earlier measurements, in bytes."""
        ...


class Planner:
    """Gathers the input of the pure functions in `planning`; changes nothing."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        engines: Mapping[str, Engine],
        registrations: Registrations,
        memory: ReservedMemory,
        work: LongWork,
        node: Node,
        *,
        nodes: Mapping[str, Node] | None = None,
        placer: NodePlacer | None = None,
        stores_look_ups: bool = True,
    ) -> None:
        """Make the planner of one server.

        Args:
            node: this machine.
            nodes: all machines by id, which may change; None: this one only.
            placer: chooses the nodes of launches; None: this machine is the only one.
        """
        self._node = node
        self.nodes: Mapping[str, Node] = {node.node_id: node} if nodes is None else nodes
        self._placer = placer
        self._engines = engines
        self._home = settings.home
        self._registrations = registrations
        self._memory = memory
        self._forecaster = Forecaster(settings, hubs, engines, work)
        self._files = work.files
        self.resolver = ModelResolver(
            settings, registrations, hubs, work.questions, engines, stores_look_ups=stores_look_ups, host=node.host
        )
        self.hub_chooser = HubChooser(settings, hubs, work.choices)
        self._environments = Environments(settings)
        self.option_tables = OptionTables(engines)
        self._fit_finder: FitFinder | None = None
        self._fit_lock = asyncio.Lock()

    async def family(self, name: str) -> ModelFamily:
        """The family of a known model's name; for a path or a hub's id, the family derived from the files.

        Raises:
            Problem: 400 ``model_not_found`` with similar names, or any problem of `ModelResolver.resolve`.
        """
        request = (await self.resolver.resolve(LaunchRequest(model_name=name), any_file=True)).request
        return request.family or match(self._registrations.families, request).family

    async def draft(self, request: LaunchRequest, uid: str) -> LaunchDraft:
        """Draft a request whose name is resolved, without access to hubs.

        Raises:
            Problem: 400, the request can't be served on this host.
        """
        facts = await self.facts(request)
        draft = draft_launch(facts, request, uid)
        package = self._engines[draft.engine].package
        if package is None or tuning.is_off(request.options):
            return draft
        tunings = await self._files.run(read_tunings, self._home)
        if not tunings:
            return draft
        return tuning.with_tuning(draft, tuning.find_tuning(tunings, draft, metadata.version(package), facts.host))

    async def resolve(self, draft: LaunchDraft, request: LaunchRequest) -> ResolvedLaunch:
        """Add to the draft of `request` its hub, or the file or folder of its path; reads no header.

        Raises:
            Problem: 400, no hub has the version, or its path is not that of its weights.
        """
        engine, version = self._engines[draft.engine], draft.version
        if request.model_path is None:
            source, why = await self.hub_chooser.choose(version, request.download_hub)
            return resolve_launch(draft, source, why, engine)
        path = await self._files.run(resolve_local, request.model_path, version.spec.model_format, request.quantization)
        return resolve_launch(draft, path, "named by the launch", engine)

    async def size(self, launch: ResolvedLaunch, request: LaunchRequest | None = None) -> SizedPlan | None:
        """Size a launch within the memory that is not reserved for others; None: its weights are not on disk yet.

        Args:
            request: the request of the user, for the commands in a refusal.

        Raises:
            Problem: 400 ``does_not_fit``, with requests that would fit; ``bad_weight_file``.
        """
        if self._placer is not None and self._placer.takes(launch):
            return await size_on_nodes(launch, self._placer, self.nodes, self._engines[launch.engine])
        path = await self._node.find_weights(launch)
        if path is None:
            return None
        header = await self._node.read_header(launch, path)
        host = await self._node.host()
        return self._size(launch, request or launch.request, path, header.shape, host, header.notes)

    async def forecast(self, launch: ResolvedLaunch, request: LaunchRequest | None = None) -> Forecast:
        """The expected memory and disk space of a launch whose weights are on a hub; fetches no weights.

        Raises:
            Problem: 400 ``does_not_fit``, 507 ``disk_full``, both with requests that would fit; 400
                ``bad_weight_file``, the header on the hub is damaged.
        """
        assert isinstance(launch.origin, Source)  # the weights at a path are there, or the launch is not resolved
        view = await self._view(launch)
        host = view.hosts[self._placer.best(view, launch.request)] if self._placer and view else await self._node.host()
        expected = await self._forecaster.expect(launch, launch.origin, host)
        adapters = self._engines[launch.engine].adapters(launch)
        if adapters and expected.source != "estimate":
            await self._files.run(check_adapters_fit, adapters, expected.shape, launch.version.family.model_name)
        request = request or launch.request
        # Without the weights, a sum would be far too small. The launch is sized after its download.
        sized = None if expected.are_of_unknown_size else self._size_expected(launch, request, expected, host, view)
        if view is not None:  # the disks of other machines are checked there
            return _forecast(expected, sized, ())
        refused = self._refused(launch, request, expected.shape, host)
        check_disk(launch.version, expected.disk, lambda fits: smaller_downloads(replace(refused, fits_disk=fits)))
        return _forecast(expected, sized, expected.disk)

    async def _view(self, launch: ResolvedLaunch) -> NodesView | None:
        """The nodes on which a launch may be placed; None: it runs on this machine."""
        return await self._placer.view(launch) if self._placer is not None and self._placer.takes(launch) else None

    def _size_expected(
        self,
        launch: ResolvedLaunch,
        request: LaunchRequest,
        expected: ExpectedWeights,
        host: Host,
        view: NodesView | None,
    ) -> SizedPlan | None:
        """The expected plan; None: a guess of the cache does not fit, and only the weights are estimated."""
        try:
            if view is not None and self._placer is not None:
                return self._placer.size(launch, Path(), expected.shape, (), view)
            return self._size(launch, request, Path(), expected.shape, host)
        except Problem as problem:
            if problem.code != Code.DOES_NOT_FIT:
                raise
            if expected.source != "estimate":
                raise problem.replace(cause=f"{problem.cause} {_SOURCE_TEXTS[expected.source]}") from None
        without_cache = msgspec.structs.replace(expected.shape, kv_bytes_per_token=0)
        try:
            if view is not None and self._placer is not None:
                self._placer.size(launch, Path(), without_cache, (), view)
                return None
            self._size(launch, request, Path(), without_cache, host)
        except Problem as problem:
            raise problem.replace(cause=f"{problem.cause} {_SOURCE_TEXTS[expected.source]}") from None
        return None

    def _size(
        self,
        launch: ResolvedLaunch,
        request: LaunchRequest,
        path: Path,
        shape: ModelShape,
        host: Host,
        notes: tuple[str, ...] = (),
    ) -> SizedPlan:
        engine = self._engines[launch.engine]
        engine.check_weights(launch, shape)
        engine.check_packing(launch, shape, host)
        memory = available(host, self._memory.occupancy_for(launch))
        try:
            return size_launch(launch, path, shape, memory, engine.memory, notes)
        except Problem as problem:
            if problem.code != Code.DOES_NOT_FIT:
                raise
            found = alternatives(self._refused(launch, request, shape, host))
            raise problem.replace(suggestions=found, hint=None if found else problem.hint) from None

    def _refused(self, launch: ResolvedLaunch, request: LaunchRequest, shape: ModelShape, host: Host) -> Refused:
        reserved = {uid: count for uid, count in self._memory.reserved().items() if uid != launch.uid}
        return Refused(
            launch,
            request,
            shape,
            host,
            self._engines,
            lambda without: self._memory.occupancy_for(launch, without),
            reserved,
        )

    async def fits(self, families: Iterable[ModelFamily]) -> list[Fit]:
        """Whether each version of these families fits on each engine; fetches nothing and reads no weights."""
        from xinference.planning.fits import FitFinder, Memory  # rare: the start of the server does without it

        async with self._fit_lock:
            finder = self._fit_finder = self._fit_finder or FitFinder(self._engines)
            host = await self._node.host()
            memory = Memory(
                available(host, self._memory.occupancy()),
                [
                    (tuple(uids), available(host, self._memory.occupancy(uids)))
                    for uids in unload_groups(self._memory.reserved())
                ],
                self._memory.corrections(),
            )
            return await asyncio.to_thread(list, finder.find(families, host, memory))

    async def facts(self, request: LaunchRequest) -> Facts:
        """The facts that planning needs for the request."""
        host = await self._node.host()
        if self._placer is not None:
            self._placer.check(request)
        if self._placer is not None and not request.on_demand:
            host = await planning_host(self._placer, self.nodes, request, host)
        known = await self.option_tables.known(request.model_engine) if request.options else {}
        family = request.family
        families = self._registrations.families if family is None else {family.model_name: family}
        environments = await self._files.run(self._environments_of, host)
        return Facts(families, self._engines, host, known, environments)

    def _environments_of(self, host: Host) -> Mapping[str, EnvironmentEntry]:
        """The environment of each engine that has one for this host. Blocks."""
        specs = {name: engine.environment(host) for name, engine in self._engines.items()}
        # The environment of this release is listed before those of other releases with the same versions.
        entries = {entry.spec: entry for entry in reversed(self._environments.entries())}
        return {name: entries[spec] for name, spec in specs.items() if spec in entries}


def _forecast(expected: ExpectedWeights, sized: SizedPlan | None, disk: tuple[DiskNeed, ...]) -> Forecast:
    return Forecast(
        expected.source,
        sized.sizing if sized else None,
        sized.places if sized else (),
        disk,
        expected.download_bytes,
        expected.notes,
        expected.files,
    )
