"""This machine as a node: hubs, caches, environments and keepers, without a link between."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.environments.environments import Environments
from xinference.errors import Problem, join_names
from xinference.files.write_errors import write_problem
from xinference.hardware.devices import Host, read_host
from xinference.hosts import LOCAL_NODE
from xinference.hubs.base import Hub
from xinference.launch.plan import LaunchPlan, ResolvedLaunch
from xinference.log_position import LogPosition, Piece
from xinference.nodes.engine_guard import guard_of
from xinference.nodes.memory_use import MemoryUse, measure
from xinference.nodes.node import (
    MAX_LOG_BYTES,
    NodeAddress,
    OfferedWeights,
    PeerWeights,
    Report,
    Step,
    WeightsHeader,
)
from xinference.nodes.peer_link import PeerLink
from xinference.process.command import EngineCommand
from xinference.process.engine_watch import Guard
from xinference.process.log_reader import read_from, read_last_lines
from xinference.process.replica import Replica
from xinference.process.snapshot import ReplicaSnapshot
from xinference.routing.interfaces import ReplicaLoad
from xinference.weights import conversion, shape_reader
from xinference.weights.adapter_files import check_adapters_fit
from xinference.weights.fetch import fetch, local_path
from xinference.work_threads import LongWork


class LocalNode:
    """A `Node` of this machine. Blocking work runs in threads."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        engines: Mapping[str, Engine],
        load: ReplicaLoad,
        work: LongWork,
        node_id: str = LOCAL_NODE,
    ) -> None:
        """`load` counts the requests of each replica, for the watch on its progress."""
        self.node_id = node_id
        self.address: NodeAddress | None = None
        self.peers: PeerLink | None = None
        """Copies weights from other nodes, and to them; None: there are none."""
        self._settings = settings
        self._hubs = hubs
        self._engines = engines
        self._load = load
        self._work = work

    async def host(self) -> Host:
        return await asyncio.to_thread(read_host)

    # -- preparation ------------------------------------------------------------------------------------------

    async def find_weights(self, launch: ResolvedLaunch) -> Path | None:
        return await self._work.files.run(local_path, self._hubs, launch)

    async def offer_weights(self, launch: ResolvedLaunch) -> OfferedWeights | None:
        source = launch.origin
        hub = None if isinstance(source, Path) else self._hubs.get(source.hub)
        if hub is None or self.peers is None or isinstance(source, Path):
            return None
        offer = await self._work.files.run(hub.offer, launch.version, source)
        return None if offer is None else OfferedWeights(self.peers.offers.add(offer), offer.listing)

    async def fetch_weights(self, launch: ResolvedLaunch, report: Report, peers: PeerWeights | None = None) -> Path:
        version, source = launch.version, launch.origin
        if isinstance(source, Path):
            return source
        if path := await self.find_weights(launch):
            return path
        if peers is not None and self.peers is not None and (hub := self._hubs.get(source.hub)) is not None:
            names = join_names([peer.name for peer in peers.peers])
            report.begin("fetch", f"copying {version.version_id} from {names}")
            copy = self.peers.copy(peers)
            return await self._in_thread("fetch", report, hub.receive, version, source, peers.listing, copy)
        report.begin("fetch", f"fetching {version.version_id} from {source.hub} ({source.model_id})")
        return await self._in_thread("fetch", report, fetch, self._hubs, version, source)

    async def read_header(self, launch: LaunchPlan, path: Path) -> WeightsHeader:
        resolved = launch if isinstance(launch, ResolvedLaunch) else launch.launch
        engine = self._engines[launch.engine]
        extra, adapters = engine.extra_weight_files(resolved, path), engine.adapters(resolved)

        def read() -> WeightsHeader:
            shape, notes = shape_reader.read_shape(path, launch.version, extra)
            check_adapters_fit(adapters, shape, launch.version.family.model_name)
            return WeightsHeader(shape, notes)

        return await self._work.files.run(read)

    async def convert_weights(self, path: Path, version: ModelVersion, report: Report) -> Path:
        if version.spec.model_format != "ggmlv3":
            return path
        report.begin("convert", None)
        return await self._in_thread("convert", report, conversion.convert_if_needed, self._settings, path, version)

    async def find_or_install(self, engine: str, report: Report) -> Path:
        spec = self._engines[engine].environment(await self.host())
        if spec is None:
            return Path(sys.executable)
        environments = Environments(self._settings)
        if python := await self._work.files.run(environments.find, spec):
            return python
        size = f"{environments.size(spec) / 1e9:.1f} GB"
        report.begin("environment", f"installing {spec.engine} {spec.version} ({size})")
        return await self._in_thread("environment", report, environments.install, spec)

    async def _in_thread(self, step: Step, report: Report, work: Callable[..., Path], *arguments: object) -> Path:
        """Run long blocking work in a thread, with its progress and cancellation."""
        loop, cancelled = asyncio.get_running_loop(), threading.Event()

        def progress(done: int, total: int | None, file: str) -> None:
            loop.call_soon_threadsafe(report.progress, step, file, done, total)

        threads = self._work.transfers if step == "fetch" else self._work.builds
        job = asyncio.ensure_future(threads.run(work, *arguments, progress, cancelled, cancelled=cancelled))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            cancelled.set()
            # The thread reads the flag. Wait for its end, so that it does not outlive this task.
            await asyncio.gather(job, return_exceptions=True)
            raise
        except Problem as problem:
            raise problem.at(step) from None

    # -- replicas ---------------------------------------------------------------------------------------------

    def start(self, replica_id: str, command: EngineCommand, changed: Callable[[], None]) -> Replica:
        log_path = self._settings.log_dir / f"{replica_id}.log"
        guard = self._guard(command.context)
        try:
            return Replica.start(replica_id, command, self._settings, log_path=log_path, changed=changed, guard=guard)
        except OSError as error:
            raise write_problem(error, log_path.parent) from None

    async def adopt(self, replica_id: str) -> Replica | None:
        return await Replica.adopt(replica_id, self._settings, self._guard)

    async def measure(self, replica: ReplicaSnapshot) -> MemoryUse | None:
        pid = replica.engine_pid
        return None if pid is None else await asyncio.to_thread(measure, pid)

    async def read_log(self, path: Path, lines: int, position: LogPosition | None) -> Piece:
        if position is not None:
            return await asyncio.to_thread(read_from, path, position, MAX_LOG_BYTES)
        piece = await asyncio.to_thread(read_last_lines, path, lines)
        return Piece(piece.data[-MAX_LOG_BYTES:], piece.end)

    def _guard(self, context: Mapping[str, Any]) -> Guard:
        return guard_of(context, self._settings, self._load)
