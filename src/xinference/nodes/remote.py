"""A node of a cluster: the same as `LocalNode`, over the fabric."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from xinference.catalog.models import ModelVersion
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import Event, Fabric, NodeGoneError
from xinference.hardware.devices import Host
from xinference.launch.launch_context import encode_launch
from xinference.launch.plan import LaunchPlan, ResolvedLaunch
from xinference.log_position import LogPosition, Piece
from xinference.nodes import messages
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.message_codec import decode_answer, decode_event, decode_host, encode
from xinference.nodes.node import NodeAddress, OfferedWeights, PeerWeights, Report, WeightsHeader
from xinference.nodes.remote_operations import RemoteOperations
from xinference.nodes.remote_replica import RemoteReplica
from xinference.process.command import EngineCommand
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.task_set import TaskSet

log = logging.getLogger(__name__)

#: Maximum time for an answer, in seconds: an agent answers at once; a header may be on a slow disk.
ANSWER_SECONDS, HEADER_SECONDS = 10.0, 60.0
#: How long the first question for a replica of an earlier server waits for the link of its node, in seconds.
LINK_SECONDS = 5.0
#: Maximum age of a report of the node's resources that is used without a question.
HOST_SECONDS = 3.0
#: Maximum number of replicas of a node that no row names: more are not stopped, and not remembered.
MAX_UNKNOWN = 1000

Got = TypeVar("Got", bound=messages.Message)


class RemoteNode:
    """A `Node` behind a link. `receive` and `note_link` get what the fabric says of it."""

    def __init__(
        self,
        node_id: str,
        fabric: Fabric,
        epoch: int,
        *,
        front_door: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            epoch: that of this server; the node obeys only the highest.
            front_door: URL of the node's door for requests; None: its engines are reached at their own addresses.
        """
        self.node_id = node_id
        self._fabric = fabric
        self._epoch = epoch
        self.front_door = front_door
        self.address: NodeAddress | None = None
        self._linked = asyncio.Event()
        self._clock = clock
        self._replicas: dict[str, RemoteReplica] = {}
        self._starting: set[str] = set()
        """The replicas whose `Start` has no answer yet."""
        self._given_up: set[str] = set()
        """Replicas that were replaced elsewhere: they are stopped when the node is back."""
        self._is_leaving = self._stops = False
        """The worker has said over this link that it ends with its engines; and that it stops them now."""
        self._operations = RemoteOperations(f"{node_id}-{epoch}", self._tell)
        self._host: Host | messages.HostReport | None = None
        """The last report of its resources, decoded when somebody asks for it; None: its link is down."""
        self._host_time = 0.0
        self._tasks = TaskSet()

    # -- the machine and its weights --------------------------------------------------------------------------

    async def host(self) -> Host:
        last = self.last_host
        if last is not None and self._clock() - self._host_time <= HOST_SECONDS:
            return last
        host = (await self._ask(messages.AskHost(), messages.HostIs)).host
        self._host, self._host_time = host, self._clock()
        return host

    @property
    def last_host(self) -> Host | None:
        """The last report of its resources; None: its link is down."""
        if isinstance(self._host, messages.HostReport):
            try:
                self._host = decode_host(self._host)
            except Problem as problem:
                log.warning("node %s: %s", self.node_id, problem)
                self._host = None
        return self._host

    async def find_weights(self, launch: ResolvedLaunch) -> Path | None:
        ask = messages.FindWeights(launch.uid, encode_launch(launch))
        return (await self._ask(ask, messages.PathIs, HEADER_SECONDS)).path

    async def read_header(self, launch: LaunchPlan, path: Path) -> WeightsHeader:
        ask = messages.ReadHeader(launch.uid, encode_launch(launch), path)
        header = await self._ask(ask, messages.HeaderIs, HEADER_SECONDS)
        return WeightsHeader(header.shape, header.notes)

    async def offer_weights(self, launch: ResolvedLaunch) -> OfferedWeights | None:
        ask = messages.OfferWeights(launch.uid, encode_launch(launch))
        answer = await self._ask(ask, messages.OfferIs)
        return None if answer.listing is None else OfferedWeights(answer.digest, answer.listing)

    async def fetch_weights(self, launch: ResolvedLaunch, report: Report, peers: PeerWeights | None = None) -> Path:
        stored = encode_launch(launch)
        return await self._operate(lambda name: messages.FetchWeights(name, launch.uid, stored, peers), report)

    async def convert_weights(self, path: Path, version: ModelVersion, report: Report) -> Path:
        return await self._operate(lambda name: messages.ConvertWeights(name, path, version), report)

    async def find_or_install(self, engine: str, report: Report) -> Path:
        return await self._operate(lambda name: messages.FindOrInstall(name, engine), report)

    # -- replicas ---------------------------------------------------------------------------------------------

    def start(self, replica_id: str, command: EngineCommand, changed: Callable[[], None]) -> RemoteReplica:
        first = ReplicaSnapshot(
            replica_id,
            ReplicaState.NEW,
            0,
            "",
            command.api_key,
            command.context,
            Path(f"{replica_id}.log"),
            node_id=self.node_id,
        )
        replica = self._mirror(first, changed)
        self._starting.add(replica_id)
        self._tasks.start(self._start(replica, command))
        return replica

    async def adopt(self, replica_id: str) -> RemoteReplica | None:
        """See `Node.adopt`. The replica of a node that is not linked is awaited, until the node is linked or lost."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._linked.wait(), LINK_SECONDS)
        state, log_path = ReplicaState.STARTING, Path(f"{replica_id}.log")
        report: messages.ReplicaReport | None = None
        try:
            report = (await self._ask(messages.Adopt(replica_id), messages.ReplicaIs, HEADER_SECONDS)).report
            if report is None:
                return None
            state, log_path = report.state, report.log_path
        except Problem as problem:
            if problem.code not in (Code.NODE_GONE, Code.NODE_TIMEOUT):
                raise
        first = ReplicaSnapshot(replica_id, state, 0, "", "", {}, log_path, node_id=self.node_id)
        replica = self._mirror(first, lambda: None)
        if report is not None:
            self._apply(report, is_first=True)
        return replica

    async def measure(self, replica: ReplicaSnapshot) -> MemoryUse | None:
        try:
            return (await self._ask(messages.Measure(replica.replica_id), messages.MemoryIs)).used
        except Problem as problem:
            log.warning("the memory of %s is not measured: %s", replica.replica_id, problem)
            return None

    async def read_log(self, path: Path, lines: int, position: LogPosition | None) -> Piece:
        ask = messages.ReadLog(path, lines, position)
        answer = await self._ask(ask, messages.PieceIs)
        return Piece(answer.data, answer.end)

    async def restart(self) -> None:
        """Restart the worker's process. Its engines run on, and the next process takes them over.

        Raises:
            Problem: 503 ``node_gone``; 504 ``node_timeout``; 502 ``node_message_refused``, its release is older.
        """
        await self._ask(messages.RestartWorker(), messages.Done)

    @property
    def replica_ids(self) -> Collection[str]:
        """The replicas that are mirrored."""
        return self._replicas.keys()

    # -- from the fabric --------------------------------------------------------------------------------------

    def receive(self, event: Event) -> messages.ReceivedEvent | None:
        """Take an event of the node, and return it; one that cannot be read is logged."""
        try:
            body = decode_event(event.body)
        except Problem as problem:
            log.warning("node %s: %s", self.node_id, problem)
            return None
        match body:
            case messages.HostReport():  # the most frequent one
                self._host, self._host_time = body, self._clock()
            case messages.WholeState():
                self._note_leaving(is_leaving=body.is_leaving, stops=body.is_leaving)
                self._take_state(body)
            case messages.Leaving():
                self._note_leaving(is_leaving=True, stops=not body.waits)
            case messages.ReplicaReport():
                self._apply(body)
            case messages.Began() | messages.Progressed() | messages.Finished():
                self._operations.receive(body)
        return body

    def acknowledge(self, served: messages.Served) -> None:
        """Let the node forget the records of requests that are counted."""
        self._tell(messages.Counted(served.process, served.number))

    def note_leave(self) -> None:
        """Tell the node that its replicas are started elsewhere first."""
        self._tell(messages.LeaveNoted())

    def let_leave(self) -> None:
        """Tell the node that nothing is started there any more, and send its engines no more requests."""
        self._note_leaving(is_leaving=True, stops=True)
        self._tell(messages.MayLeave())

    def note_link(self, *, is_up: bool) -> None:
        """The link came up or went down. What goes on over there goes on: the whole state says how it ended."""
        if is_up:
            self._linked.set()
        else:
            self._linked.clear()
            self._host = None

    def give_up(self) -> None:
        """End the mirrors of all replicas: the node is lost, and they are planned anew elsewhere."""
        lost = Problem(Code.NODE_GONE, f"The node {self.node_id} is lost.", stage="start")
        self._given_up.update(self._replicas)
        for replica_id in tuple(self._replicas):
            self._replicas.pop(replica_id).fail(lost)
        self._operations.fail_all(lost)

    def stop_given_up(self) -> None:
        """Stop what was replaced elsewhere: the node was only silent, so no new link brings its whole state."""
        for replica_id in self._given_up:
            self._tell(messages.Stop(replica_id))

    def end_unknown(self, state: messages.WholeState, is_known: Callable[[str], bool]) -> None:
        """Stop the engines of a node's state that no row of the server names: an earlier server started them."""
        ids = list(islice((each.replica_id for each in state.replicas), MAX_UNKNOWN))
        unknown = [each for each in ids if each not in self._replicas and not is_known(each)]
        for replica_id in unknown[: max(0, MAX_UNKNOWN - len(self._given_up))]:
            self._given_up.add(replica_id)
            self._tell(messages.Stop(replica_id))
        if unknown:
            named = ", ".join(each[:100] for each in unknown[:10])
            log.warning(
                "node %s: %d engines have no row in the database, and are stopped: %s%s",
                self.node_id,
                len(unknown),
                named,
                ", …" if len(unknown) > 10 else "",
            )

    async def close(self) -> None:
        """End the questions that have no answer."""
        await self._tasks.end()

    def _note_leaving(self, *, is_leaving: bool, stops: bool) -> None:
        """Whether the worker of the node ends; `stops`: its engines are stopped now, and get no more requests."""
        self._is_leaving, self._stops = is_leaving, stops
        for replica in tuple(self._replicas.values()):
            replica.note_leaving(is_leaving=is_leaving, stops=stops)

    def _mirror(self, first: ReplicaSnapshot, changed: Callable[[], None]) -> RemoteReplica:
        """The mirror of a replica from now on."""
        replica = self._replicas[first.replica_id] = RemoteReplica(first, changed, self._stop)
        replica.note_leaving(is_leaving=self._is_leaving, stops=self._stops)
        return replica

    def _take_state(self, state: messages.WholeState) -> None:
        """Compare what is mirrored with all that the node has."""
        self._operations.take_state(state)
        reported = {report.replica_id for report in state.replicas}
        for report in state.replicas:
            self._apply(report, is_first=True)
            if report.replica_id in self._given_up:
                self._tell(messages.Stop(report.replica_id))
        for replica_id, replica in tuple(self._replicas.items()):
            if replica_id not in reported and replica_id not in self._starting:
                self._tasks.start(self._adopt_again(replica_id))
            elif replica.stopping:
                self._stop(replica)

    def _apply(self, report: messages.ReplicaReport, *, is_first: bool = False) -> None:
        replica = self._replicas.get(report.replica_id)
        if replica is not None:
            if self.front_door is not None:
                url = f"{self.front_door}/r/{report.replica_id}"
                report = msgspec.structs.replace(report, base_url=url)
            replica.apply(report, is_first=is_first)
        if report.state is ReplicaState.EXITED and (replica is not None or report.replica_id in self._given_up):
            self._replicas.pop(report.replica_id, None)
            self._given_up.discard(report.replica_id)
            self._tell(messages.Forget(replicas=(report.replica_id,)))

    # -- to the node ------------------------------------------------------------------------------------------

    async def _ask(self, ask: messages.Ask, kind: type[Got], seconds: float = ANSWER_SECONDS) -> Got:
        """The answer to a question.

        Raises:
            Problem: that of the node; 503 ``node_gone``, 504 ``node_timeout``, 502 ``node_message_refused``.
        """
        try:
            data = await self._fabric.call(self.node_id, self._encoded(ask), seconds)
        except NodeGoneError as error:
            raise Problem(Code.NODE_GONE, str(error), hint="`xinference cluster info` shows its state.") from None
        except TimeoutError:
            asked = type(ask).__name__
            cause = f"The node {self.node_id} did not answer {asked} within {seconds:g} s, although its link is up."
            raise Problem(Code.NODE_TIMEOUT, cause, hint="The log of its worker may have the reason.") from None
        answer = decode_answer(data)
        if isinstance(answer, messages.Refused):
            raise Problem.from_dict(answer.problem)
        if not isinstance(answer, kind):
            cause = f"The node {self.node_id} answered {type(ask).__name__} by {type(answer).__name__}."
            raise Problem(Code.NODE_MESSAGE_REFUSED, cause, hint="Install the same version of Xinference on both.")
        return answer

    def _tell(self, order: messages.Tell) -> None:
        self._fabric.tell(self.node_id, self._encoded(order))

    def _encoded(self, body: messages.Ask | messages.Tell) -> bytes:
        return encode(messages.Envelope(self._epoch, body))

    async def _operate(self, ask: Callable[[str], messages.Ask], report: Report) -> Path:
        """Run an operation on the node.

        Raises:
            Problem: that of the operation, with the node: its paths and disks are those of that machine.
        """
        try:
            return await self._operations.run(lambda name: self._ask(ask(name), messages.Done), report)
        except Problem as problem:
            if self.node_id in problem.cause:
                raise
            raise problem.replace(cause=f"On the node {self.node_id}: {problem.cause}") from None

    async def _start(self, replica: RemoteReplica, command: EngineCommand) -> None:
        replica_id = replica.snapshot.replica_id
        try:
            await self._ask(messages.Start(replica_id, command), messages.Done)
        except Problem as problem:
            # The node may have started it all the same, if only the answer was lost.
            self._given_up.add(replica_id)
            self._tell(messages.Stop(replica_id))
            self._replicas.pop(replica_id, None)
            replica.fail(problem.at("start"))
        finally:
            self._starting.discard(replica_id)
        if replica.stopping and not replica.over:
            self._tell(messages.Stop(replica_id))

    async def _adopt_again(self, replica_id: str) -> None:
        """Ask for a replica that the agent does not have: its keeper may wait for it, after a restart of the agent."""
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        try:
            report = (await self._ask(messages.Adopt(replica_id), messages.ReplicaIs, HEADER_SECONDS)).report
        except Problem as problem:
            if problem.code in (Code.NODE_GONE, Code.NODE_TIMEOUT):
                return  # the next whole state asks again
            report = None
        if report is not None:
            self._apply(report, is_first=True)
            if replica.stopping:
                self._stop(replica)
            return
        self._replicas.pop(replica_id, None)
        replica.fail(Problem(Code.ENGINE_DIED, f"The node {self.node_id} has no process of the engine any more."))

    def _stop(self, replica: RemoteReplica) -> None:
        replica_id = replica.snapshot.replica_id
        if replica_id not in self._starting:  # an order may overtake a question; `_start` stops it then
            self._tell(messages.Stop(replica_id))
