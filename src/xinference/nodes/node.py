"""The interface to a machine on which replicas run: all that the deployments do on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from xinference.catalog.models import ModelVersion
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hubs.listing import Listing
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch
from xinference.log_position import LogPosition, Piece
from xinference.nodes.memory_use import MemoryUse
from xinference.process.command import EngineCommand, Exit
from xinference.process.snapshot import ReplicaSnapshot

#: Problems of work on a node that are none of the work: the node ends, or cannot be reached. Another one may do it.
LOST_NODE = frozenset({Code.NODE_GONE, Code.NODE_LEAVING, Code.NODE_TIMEOUT, Code.NODE_UNKNOWN})
#: Maximum number of bytes of a log that a node reads at once.
MAX_LOG_BYTES = 256 * 1024
Step = Literal["fetch", "convert", "environment"]
"""A step of a preparation that can take long."""


class Report(Protocol):
    """Takes the progress of a preparation. A node calls it in the event loop."""

    def begin(self, step: Step, content: str | None) -> None:
        """A step begins that has something to do; `content` is the text of its event, if it has one."""
        ...

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        """Bytes of `file` that are done; `total` None: not known."""
        ...


class FetchReport(Report, Protocol):
    """The report of a fetch, which counts its bytes by their source."""

    def count_from(self, source: str) -> None:
        """The bytes that follow are from this source: the name of a hub, or ``peer``."""
        ...


@dataclass(frozen=True)
class WeightsHeader:
    """What the header of weights says."""

    shape: ModelShape
    notes: tuple[str, ...] = ()
    """Notes for the user from reading the header."""


class ReplicaLike(Protocol):
    """One engine process on a node; `process.replica.Replica` documents the methods."""

    @property
    def snapshot(self) -> ReplicaSnapshot: ...

    def report_to(self, changed: Callable[[], None]) -> None: ...

    async def wait_ready(self) -> None: ...

    async def wait_exited(self) -> Exit: ...

    async def stop(self) -> Exit | None: ...

    async def detach(self) -> None: ...


class Peer(msgspec.Struct, frozen=True):
    """A node that has weights."""

    node_id: str
    name: str
    """For messages."""
    host: str
    """Of its front door; empty: the host of the supervisor, as the reader reaches it."""
    port: int


class PeerWeights(msgspec.Struct, frozen=True):
    """Weights that some nodes have."""

    digest: str
    """Of the content; the name of the files at the front doors."""
    listing: Listing
    peers: tuple[Peer, ...]


@dataclass(frozen=True)
class OfferedWeights:
    """What a node offers to the others."""

    digest: str
    listing: Listing


@dataclass(frozen=True)
class NodeAddress:
    """Where the other nodes of a cluster reach a node."""

    host: str
    interface: str | None = None
    """The network interface that has the address; None: not known."""


class Node(Protocol):
    """One machine. Paths are those of this machine."""

    @property
    def node_id(self) -> str: ...

    @property
    def address(self) -> NodeAddress | None:
        """None: other nodes do not reach it."""
        ...

    async def host(self) -> Host:
        """Its cores, its memory and its GPUs now."""
        ...

    # -- preparation ------------------------------------------------------------------------------------------

    async def find_weights(self, launch: ResolvedLaunch) -> Path | None:
        """The path of the launch's weights if the node has them; connects to no hub."""
        ...

    async def offer_weights(self, launch: ResolvedLaunch) -> OfferedWeights | None:
        """Offer the launch's weights to the other nodes; None: this node does not have them."""
        ...

    async def fetch_weights(self, launch: ResolvedLaunch, report: Report, peers: PeerWeights | None = None) -> Path:
        """The path of the launch's weights. If the node does not have them, it gets them from its hub or from `peers`.

        Raises:
            Problem: they cannot be fetched; 503 ``peer_copy_failed``: no peer gives them.
        """
        ...

    async def read_header(self, launch: LaunchPlan, path: Path) -> WeightsHeader:
        """Read the header of the weights at `path`, with the launch's further weight files.

        Raises:
            Problem: the header cannot be read.
        """
        ...

    async def convert_weights(self, path: Path, version: ModelVersion, report: Report) -> Path:
        """The path of the weights in a format that engines load; converts them if necessary.

        Raises:
            Problem: the conversion failed.
        """
        ...

    async def find_or_install(self, engine: str, report: Report) -> Path:
        """The interpreter of the engine's environment, which is installed if it is missing.

        Raises:
            Problem: the environment cannot be installed.
        """
        ...

    # -- replicas ---------------------------------------------------------------------------------------------

    def start(self, replica_id: str, command: EngineCommand, changed: Callable[[], None]) -> ReplicaLike:
        """Begin to start an engine; `changed` is called after each new snapshot.

        Raises:
            Problem: the start is refused, or the log cannot be written.
        """
        ...

    async def adopt(self, replica_id: str) -> ReplicaLike | None:
        """The running replica of an earlier server, which ends no more with its grace period; None: it does not run.

        Raises:
            Problem: the folder of the sockets is not safe.
        """
        ...

    async def measure(self, replica: ReplicaSnapshot) -> MemoryUse | None:
        """Measure the memory of a replica's processes; None: it cannot be measured."""
        ...

    async def read_log(self, path: Path, lines: int, position: LogPosition | None) -> Piece:
        """The last lines of an engine's log or, with `position`, what was written after it.

        The data are at most `MAX_LOG_BYTES`: the last ones of the lines, or the first ones after the place.
        """
        ...


def node_of(nodes: Mapping[str, Node], node_id: str) -> Node:
    """The node with this id.

    Raises:
        Problem: 503 ``node_unknown``, it is not in the cluster any more.
    """
    if (node := nodes.get(node_id)) is not None:
        return node
    listed = ", ".join(sorted(nodes)) or "none"
    raise Problem(Code.NODE_UNKNOWN, f"This server has no node {node_id}.", hint=f"Its nodes: {listed}.")
