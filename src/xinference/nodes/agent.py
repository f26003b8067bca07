"""The node's side of its link to the server: answers the questions with a `Node` of this machine.

Its loop does no blocking work: `LocalNode` runs that in threads. What takes long is an operation: the question that
begins it is answered at once, and its end is an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, defect
from xinference.launch.launch_context import decode_launch
from xinference.launch.plan import ResolvedLaunch
from xinference.nodes import messages
from xinference.nodes.agent_operations import Operations
from xinference.nodes.agent_replicas import KeptReplicas, LastAnswers, no_answers
from xinference.nodes.message_codec import decode_envelope, encode
from xinference.nodes.node import Node
from xinference.routing.table import Target

log = logging.getLogger(__name__)
#: Time for the answer to the order to restart, in seconds.
RESTART_DELAY_SECONDS = 0.2


@dataclass
class Agent:
    """A `fabric.NodeProgram`.

    Args:
        node: this machine.
        send: sends an event to the server; it may be lost, since the whole state follows each new connection.
        take_table: called with each table of the server.
        last_answers: waits for the last answers of a replica that is to be stopped.
        counted: called when the server has counted records: see `ServedRecords.counted`.
        restart: called after the answer to the order to restart this process; None: the process can't be restarted.
    """

    node: Node
    send: Callable[[bytes], None]
    take_table: Callable[[bytes], None] = lambda table: None
    restart: Callable[[], None] | None = None
    last_answers: LastAnswers = no_answers
    counted: Callable[[str, int], None] = lambda process, number: None

    def __post_init__(self) -> None:
        self._epoch = 0
        self._operations = Operations(self._report)
        self._replicas = KeptReplicas(self.node, self._report, self.last_answers)
        self._is_leaving = False
        self.leave_noted = asyncio.Event()
        """Set once the server starts the replicas elsewhere, after `leave`."""
        self.may_leave = asyncio.Event()
        """Set once the server starts nothing here any more, after `leave`."""

    async def answer(self, message: bytes) -> bytes:
        """Answer a question of the server; a problem is an answer, too."""
        try:
            answer: messages.Answer = await self._answer(self._checked(message))
        except Problem as problem:
            answer = messages.Refused(problem.to_dict())
        except Exception as error:
            # A defect of xinference must not end the link.
            log.exception("a question of the server")
            answer = messages.Refused(defect(error).to_dict())
        return encode(answer)

    def receive(self, message: bytes) -> None:
        """Take an order of the server; one that cannot be read is logged."""
        try:
            order = self._checked(message)
        except Problem as problem:
            log.warning("%s", problem)
            return
        match order:
            case messages.Cancel():
                self._operations.cancel(order.operation)
            case messages.Stop():
                self._replicas.stop(order.replica_id)
            case messages.Forget():
                self._operations.forget(order.operations)
                self._replicas.forget(order.replicas)
            case messages.Counted():
                self.counted(order.process, order.number)
            case messages.LeaveNoted():
                self.leave_noted.set()
            case messages.MayLeave():
                self.leave_noted.set()
                self.may_leave.set()
            case _:
                log.warning("the server expects no answer to its question %s", type(order).__name__)

    def receive_table(self, table: bytes) -> None:
        """Take the newest table of the server."""
        self.take_table(table)

    @property
    def targets(self) -> Mapping[str, Target]:
        """The replicas that answer requests, by their ids."""
        return self._replicas.targets

    async def adopt_running(self, replica_ids: Iterable[str]) -> None:
        """Take over what an earlier agent of this machine left running; the server decides what becomes of it."""
        for replica_id in replica_ids:
            try:
                await self._replicas.adopt(replica_id)
            except Problem as problem:
                log.warning("the engine %s is not taken over: %s", replica_id, problem)

    def leave(self, *, waits: bool = False) -> None:
        """Refuse starts from now on, and tell the server that this worker ends with its engines.

        `waits`: the engines answer until `may_leave` is set; without it, they are stopped soon.
        """
        self._is_leaving = True
        self._report(messages.Leaving(waits))

    async def stop_engines(self) -> None:
        """Stop all engines, and wait until their ends are reported."""
        await self._replicas.stop_all()

    def state(self) -> bytes:
        """The whole state of the node: the first event after each connection."""
        running, finished = self._operations.state()
        return encode(messages.WholeState(self._replicas.reports(), running, finished, self._is_leaving))

    async def report_host(self) -> None:
        """Send the resources of this machine to the server."""
        self._report(messages.HostIs(await self.node.host()))

    def ask_for(self, uid: str) -> None:
        """Tell the server that a request waits for a model on demand."""
        self._report(messages.Wanted(uid))

    def report_served(self, served: messages.Served) -> None:
        """Send the records of requests to the server."""
        self._report(served)

    async def close(self) -> None:
        """End the operations and detach the replicas: their engines run on for the next agent of this machine."""
        await self._operations.close()
        await self._replicas.close()

    # -- questions --------------------------------------------------------------------------------------------

    def _checked(self, message: bytes) -> messages.Ask | messages.Tell:
        """The body of a message of the newest server.

        Raises:
            Problem: 502, the message cannot be read; 409, an earlier server has sent it.
        """
        envelope = decode_envelope(message)
        if envelope.epoch < self._epoch:
            raise Problem(
                Code.EARLIER_SERVER,
                f"The server of epoch {envelope.epoch} was replaced by that of epoch {self._epoch}.",
                hint="End it: another server owns this cluster now.",
            )
        self._epoch = envelope.epoch
        return envelope.body

    async def _answer(self, ask: messages.Ask | messages.Tell) -> messages.Answer:
        node = self.node
        match ask:
            case messages.AskHost():
                return messages.HostIs(await node.host())
            case messages.FindWeights():
                return messages.PathIs(await node.find_weights(_launch(ask.uid, ask.launch)))
            case messages.OfferWeights():
                offered = await node.offer_weights(_launch(ask.uid, ask.launch))
                return messages.OfferIs() if offered is None else messages.OfferIs(offered.digest, offered.listing)
            case messages.ReadHeader():
                header = await node.read_header(_launch(ask.uid, ask.launch), ask.path)
                return messages.HeaderIs(header.shape, header.notes)
            case messages.FetchWeights() | messages.ConvertWeights() | messages.FindOrInstall():
                self._check_stays()
                self._operations.begin(ask.operation, self._work_of(ask))
                return messages.Done()
            case messages.Start():
                self._check_stays()
                self._replicas.start(ask.replica_id, ask.command)
                return messages.Done()
            case messages.Adopt():
                return messages.ReplicaIs(await self._replicas.adopt(ask.replica_id))
            case messages.Measure():
                return messages.MemoryIs(await self._replicas.measure(ask.replica_id))
            case messages.RestartWorker():
                self._restart_soon()
                return messages.Done()
            case messages.ReadLog():
                piece = await node.read_log(ask.path, ask.lines, ask.position)
                return messages.PieceIs(piece.data, piece.end)
            case _:
                raise Problem(Code.NODE_MESSAGE_REFUSED, f"{type(ask).__name__} is an order, and has no answer.")

    def _check_stays(self) -> None:
        """Refuse what would run on after the end of this worker.

        Raises:
            Problem: 503 ``node_leaving``.
        """
        if self._is_leaving:
            raise Problem(
                Code.NODE_LEAVING,
                f"The worker of the node {self.node.node_id} ends, and starts nothing any more.",
                hint="Start `xinference-worker` there again.",
            )

    def _restart_soon(self) -> None:
        """Restart this process once the answer is sent.

        Raises:
            Problem: the process can't be restarted.
        """
        if self.restart is None:
            raise Problem(Code.NODE_MESSAGE_REFUSED, "This node is not a separate process, so it can't be restarted.")
        asyncio.get_running_loop().call_later(RESTART_DELAY_SECONDS, self.restart)

    def _work_of(
        self, ask: messages.FetchWeights | messages.ConvertWeights | messages.FindOrInstall
    ) -> Callable[[Any], Awaitable[Path]]:
        node = self.node
        match ask:
            case messages.FetchWeights():
                launch = _launch(ask.uid, ask.launch)
                return lambda report: node.fetch_weights(launch, report, ask.peers)
            case messages.ConvertWeights():
                return lambda report: node.convert_weights(ask.path, ask.version, report)
            case messages.FindOrInstall():
                return lambda report: node.find_or_install(ask.engine, report)

    def _report(self, event: messages.EventBody) -> None:
        self.send(encode(event))


def _launch(uid: str, stored: dict[str, Any]) -> ResolvedLaunch:
    launch = decode_launch(uid, stored)
    if launch is None:
        raise Problem(
            Code.NODE_MESSAGE_REFUSED,
            f"The launch of {uid} has the form of another release.",
            hint="Install the same version of Xinference on the server and on its nodes.",
        )
    return launch
