"""The steps before an engine can start: fetch, read and convert the weights, and build the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from xinference.deployments.context import DeploymentContext, NodesView
from xinference.deployments.snapshot import Stage
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.nodes.node import Node, Step, node_of


@dataclass(frozen=True)
class Weights:
    """Weights on a node, with the inputs of sizing: the shape of the model and the host."""

    path: Path
    shape: ModelShape
    notes: tuple[str, ...]
    """Notes for the user from reading the header."""
    host: Host
    nodes: NodesView | None = None
    """The nodes on which the launch may be placed; None: it runs on the server's own machine."""


@dataclass(frozen=True)
class Runnable:
    """The inputs of an engine's start."""

    path: Path
    """Weights in a format that the engine loads."""
    python: Path
    """The Python interpreter of the engine's environment."""


class Preparation:
    """The preparation steps of one deployment on its node. Each can be cancelled, and reports its begin and progress.

    It does not change the deployment: `begin_stage` and the results of the steps are sent to the owner. It is the
    `Report` of its node.
    """

    def __init__(
        self,
        context: DeploymentContext,
        uid: str,
        engine: str,
        begin_stage: Callable[[Stage, str | None], None],
    ) -> None:
        self._context = context
        self._uid = uid
        self._engine = engine
        self._begin_stage = begin_stage
        self.prepared: dict[str, Runnable] = {}
        """What is prepared on each other node, for the starts there."""
        self._count_bytes: Callable[[int], None] | None = None
        """Counts the bytes of the fetch."""

    async def read_weights(self, launch: ResolvedLaunch, path: Path | None = None) -> Weights:
        """Fetch the weights of a launch, unless they are cached or `path` names them, and read their header.

        Raises:
            Problem: the weights cannot be fetched or read, or cannot answer the requests of the model's type.
        """
        placer = self._context.placer
        if placer is None or not placer.takes(launch):
            return await self._read_weights(self._local, launch, path)
        view = await placer.view(launch)
        first = placer.best(view, launch.request)
        weights = await self._read_weights(node_of(self._context.nodes, first), launch, view.with_weights.get(first))
        # A download takes long: the memory that is free afterwards counts.
        return replace(weights, nodes=await placer.view(launch))

    async def _read_weights(self, node: Node, launch: ResolvedLaunch, path: Path | None) -> Weights:
        path = path or await self._fetch(node, launch)
        header = await node.read_header(launch, path)
        host = await node.host()
        engine = self._context.engines[self._engine]
        engine.check_weights(launch, header.shape)
        engine.check_packing(launch, header.shape, host)
        return Weights(path, header.shape, header.notes, host)

    async def _fetch(self, node: Node, launch: ResolvedLaunch) -> Path:
        if self._context.weights is not None:
            return await self._context.weights.fetch(node.node_id, launch, self)
        if not isinstance(launch.origin, Path):
            self.count_from(launch.origin.hub)
        return await node.fetch_weights(launch, self)

    async def make_runnable(self, plan: SizedPlan) -> Runnable:
        """Convert the weights if the engine cannot load their format, and install the engine's environment.

        On each node of the plan; the result is that of the server's own machine, or of the first node.

        Raises:
            Problem: the conversion or the installation failed.
        """
        nodes = sorted({node_id for number in range(plan.request.replica) for node_id in plan.place_of(number).nodes})
        others = [node_id for node_id in nodes if node_id != LOCAL_NODE]
        for node_id in others:
            await self.prepare_node(plan, node_id)
        if LOCAL_NODE not in nodes:
            return self.prepared[others[0]]
        path = await self._fetch(self._local, plan.launch) if others else plan.path
        path = await self._local.convert_weights(path, plan.version, self)
        return Runnable(path, await self.find_interpreter())

    async def prepare_node(self, plan: SizedPlan, node_id: str) -> None:
        """Fetch and convert the weights on a node, and install the environment there.

        Raises:
            Problem: as `make_runnable`; 503 ``node_unknown``, ``node_gone``.
        """
        node = node_of(self._context.nodes, node_id)
        path = await node.convert_weights(await self._fetch(node, plan.launch), plan.version, self)
        self.prepared[node_id] = Runnable(path, await node.find_or_install(self._engine, self))

    async def find_interpreter(self) -> Path:
        """The interpreter of the engine's environment, which is installed if it is missing.

        Raises:
            Problem: the environment cannot be installed.
        """
        return await self._local.find_or_install(self._engine, self)

    def count_from(self, source: str) -> None:
        """Count the bytes that follow as those of this source."""
        self._count_bytes = self._context.counts.meter(source)

    # -- reports of the node ----------------------------------------------------------------------------------

    def begin(self, step: Step, content: str | None) -> None:
        self._begin_stage(Stage(step), content)

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        if step == "fetch" and self._count_bytes is not None:
            self._count_bytes(done)
        self._context.events.progress(self._uid, Stage(step), file, done, total)

    @property
    def _local(self) -> Node:
        return self._context.nodes[LOCAL_NODE]
