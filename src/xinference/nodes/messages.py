"""The messages between the server and the agent of a node: typed values in MessagePack, never pickle.

A reader ignores fields that it does not know, and refuses a message of an unknown type: so a release and the one before
it understand each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion
from xinference.hardware.devices import Host
from xinference.hubs.listing import Listing
from xinference.launch.model_shape import ModelShape
from xinference.log_position import LogPosition
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import PeerWeights, Step
from xinference.process.command import EngineCommand, Exit, Fault
from xinference.process.snapshot import ReplicaState
from xinference.records.record import Record


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A message; its tag is the name of its class."""


# -- questions of the server, each with an answer -----------------------------------------------------------------


class AskHost(Message, frozen=True):
    """Answer: `HostIs`."""


class FindWeights(Message, frozen=True):
    """Answer: `PathIs`."""

    uid: str
    launch: dict[str, Any]
    """The form of `launch_context.encode_launch`, here and below."""


class OfferWeights(Message, frozen=True):
    """Answer: `OfferIs`."""

    uid: str
    launch: dict[str, Any]


class ReadHeader(Message, frozen=True):
    """Answer: `HeaderIs`."""

    uid: str
    launch: dict[str, Any]
    path: Path


class FetchWeights(Message, frozen=True):
    """Begin an operation, whose `Finished` has the path. Answer: `Done`."""

    operation: str
    uid: str
    launch: dict[str, Any]
    peers: PeerWeights | None = None
    """The nodes that have them; None: from the hub."""


class ConvertWeights(Message, frozen=True):
    """Begin an operation, whose `Finished` has the path. Answer: `Done`."""

    operation: str
    path: Path
    version: ModelVersion


class FindOrInstall(Message, frozen=True):
    """Begin an operation, whose `Finished` has the interpreter. Answer: `Done`."""

    operation: str
    engine: str


class Start(Message, frozen=True):
    """Start an engine. Answer: `Done`."""

    replica_id: str
    command: EngineCommand


class Adopt(Message, frozen=True):
    """Take over a replica. Answer: `ReplicaIs`."""

    replica_id: str


class Measure(Message, frozen=True):
    """Measure the memory of a replica. Answer: `MemoryIs`."""

    replica_id: str


class RestartWorker(Message, frozen=True):
    """Restart the worker's process; its engines run on. Answer: `Done`, before the restart."""


class ReadLog(Message, frozen=True):
    """Read the last lines of a log or, with `position`, what was written after it. Answer: `PieceIs`."""

    path: Path
    lines: int
    position: LogPosition | None = None


Ask = (
    AskHost
    | FindWeights
    | OfferWeights
    | ReadHeader
    | FetchWeights
    | ConvertWeights
    | FindOrInstall
    | Start
    | Adopt
    | Measure
    | RestartWorker
    | ReadLog
)

# -- orders of the server without an answer -----------------------------------------------------------------------


class Cancel(Message, frozen=True):
    """Cancel an operation; its `Finished` follows."""

    operation: str


class Stop(Message, frozen=True):
    """Stop a replica; its report as exited follows."""

    replica_id: str


class Forget(Message, frozen=True):
    """The server has seen these ends: the node need not report them again."""

    replicas: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


class Counted(Message, frozen=True):
    """Answers `Served`: all records up to this number are counted."""

    process: str
    number: int


class LeaveNoted(Message, frozen=True):
    """Answers `Leaving` of a worker that waits: the replicas are started elsewhere first; `MayLeave` follows."""


class MayLeave(Message, frozen=True):
    """Answers `Leaving`: the server starts nothing on the node any more, and sends its engines no requests."""


Tell = Cancel | Stop | Forget | Counted | LeaveNoted | MayLeave

# -- answers of the node ------------------------------------------------------------------------------------------


class Done(Message, frozen=True):
    """The question needs no further answer."""


class HostIs(Message, frozen=True):
    """The resources of the node; also an event, which is received as `HostReport`."""

    host: Host


class HostReport(Message, frozen=True, tag="HostIs"):
    """The event `HostIs` with the resources not yet decoded.

    Each node reports every two seconds, and few reports are read: the decoding would be half of what a report costs.
    """

    host: msgspec.Raw


class PathIs(Message, frozen=True):
    """A path on the node; None: there is none."""

    path: Path | None


class OfferIs(Message, frozen=True):
    """The weights that a node offers."""

    digest: str = ""
    """Empty: it does not have them."""
    listing: Listing | None = None


class HeaderIs(Message, frozen=True):
    """What the header of weights says."""

    shape: ModelShape
    notes: tuple[str, ...] = ()


class MemoryIs(Message, frozen=True):
    """The memory of a replica; None: not measured."""

    used: MemoryUse | None


class PieceIs(Message, frozen=True):
    """A piece of a log, and the place of its end."""

    data: bytes
    end: LogPosition


class ReplicaReport(Message, frozen=True):
    """A replica on the node; also an event."""

    replica_id: str
    serial: int
    """Rises with each report of a replica: an older report that comes later is ignored."""
    state: ReplicaState
    port: int
    base_url: str
    log_path: Path
    keeper_pid: int | None = None
    engine_pid: int | None = None
    started_at: float | None = None
    exit: Exit | None = None
    fault: Fault | None = None
    problem: dict[str, Any] | None = None
    """Why it did not become ready."""
    api_key: str = ""
    """Only in the answer to `Adopt`, as `context`: otherwise the server knows both."""
    context: dict[str, Any] = {}


class ReplicaIs(Message, frozen=True):
    """A replica that the node has; None: it does not run."""

    report: ReplicaReport | None


class Refused(Message, frozen=True):
    """The question is answered by a problem."""

    problem: dict[str, Any]


Answer = Done | HostIs | PathIs | OfferIs | HeaderIs | MemoryIs | PieceIs | ReplicaIs | Refused

# -- events of the node -------------------------------------------------------------------------------------------


class Began(Message, frozen=True):
    """A step of an operation begins."""

    operation: str
    step: Step
    content: str | None = None


class Progressed(Message, frozen=True):
    """Bytes that a step has done."""

    operation: str
    step: Step
    file: str
    done: int
    total: int | None = None


class Finished(Message, frozen=True):
    """The end of an operation: its path, or its problem."""

    operation: str
    path: Path | None = None
    problem: dict[str, Any] | None = None


class Wanted(Message, frozen=True):
    """A request at the node waits for a model on demand."""

    uid: str


class Served(Message, frozen=True):
    """The records of requests that clients have sent to the node; they come again until they are `Counted`."""

    process: str
    """The process of the worker: the numbers of each begin at 1."""
    number: int
    """The number of the last record."""
    records: tuple[Record, ...]


class Leaving(Message, frozen=True):
    """The worker ends, and stops its engines; `MayLeave` follows. A server of an earlier release does not know it."""

    waits: bool = False
    """Its engines answer until `MayLeave`, so that their replicas can be started elsewhere first. It says so at first;
    without this field, its engines are stopped soon."""


class WholeState(Message, frozen=True):
    """All that the node has; the first event after each connection. Whatever is not in it does not exist."""

    replicas: tuple[ReplicaReport, ...] = ()
    running: tuple[str, ...] = ()
    """The operations that go on."""
    finished: tuple[Finished, ...] = ()
    """The operations whose end the server has not acknowledged."""
    is_leaving: bool = False
    """The node has sent `Leaving`, over an earlier link."""


EventBody = WholeState | ReplicaReport | Began | Progressed | Finished | HostIs | Wanted | Served | Leaving
ReceivedEvent = WholeState | ReplicaReport | Began | Progressed | Finished | HostReport | Wanted | Served | Leaving


class Envelope(msgspec.Struct, frozen=True):
    """A message of the server with its epoch: a node obeys only the highest epoch that it has seen."""

    epoch: int
    body: Ask | Tell
