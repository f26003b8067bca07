"""A worker's link to its supervisor: connects, identifies the node, and reconnects whenever the link ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import NodeProgram
from xinference.fabric.node_connection import NodeConnection
from xinference.nodes.certificates import NodeIdentity, now
from xinference.nodes.hello import Welcome, hello, printable
from xinference.nodes.joining import Membership, ask, connect

log = logging.getLogger(__name__)
#: Time before the next attempt, in seconds: while no supervisor listens, as in the second in which it starts again;
#: after it has closed the connection; after it has refused this node.
QUICK_SECONDS, RETRY_SECONDS, REFUSED_SECONDS = 0.1, 1.0, 10.0
#: A supervisor that does not listen for this time is not just starting again.
QUICK_FOR_SECONDS = 30.0


class SupervisorLink:
    """The `fabric.Uplink` of a worker.

    Args:
        renewed: called after a new certificate is stored.
        hubs: those from which this node may fetch weights.
        serves: ``host:port`` at which the worker takes the requests of clients; empty: it takes none.
    """

    def __init__(
        self,
        membership: Membership,
        identity: NodeIdentity,
        front_door: str,
        name: str,
        labels: dict[str, str],
        machine: str,
        renewed: Callable[[], None],
        hubs: Iterable[str] = (),
        serves: str = "",
    ) -> None:
        self._membership = membership
        self._identity = identity
        self._front_door = front_door
        self._name = name
        self._labels = labels
        self._machine = machine
        self._renewed = renewed
        self._hubs = sorted(hubs)
        self._serves = serves
        self._connection: NodeConnection | None = None
        self._down_since = time.monotonic()
        self._last_problem = ""
        self._is_reached = False
        """Whether the last attempt has found a supervisor that listens, which has not taken the link."""
        self._changed = asyncio.Event()

    def send(self, body: bytes) -> None:
        """See `fabric.Uplink.send`."""
        if self._connection is not None:
            self._connection.send_event(body)

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def down_seconds(self) -> float:
        """Seconds without a link; 0: it is up."""
        return 0.0 if self._connection is not None else time.monotonic() - self._down_since

    async def wait_changed(self, seconds: float) -> None:
        """Wait until the link has gone up or down, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def run(self, program: NodeProgram) -> None:
        """Keep the link up until the task is cancelled."""
        while True:
            code = ""
            self._is_reached = False
            try:
                await self._run_once(program)
            except Problem as problem:
                self._log(problem)
                code = problem.code
            except Exception:
                # A defect of xinference must not leave the worker without a link for ever.
                log.exception("the link to the supervisor")
                self._is_reached = True  # the next attempt is not at once
            await asyncio.sleep(retry_seconds(code, self.down_seconds, is_reached=self._is_reached))

    async def _run_once(self, program: NodeProgram) -> None:
        member, identity = self._membership, self._identity
        request = identity.signing_request() if identity.is_due(now()) else None
        stream = await connect(member.host, member.port, identity.client_context(), member.supervisor)
        reader, writer = stream
        self._is_reached = True
        try:
            said = hello(
                self._name,
                self._front_door,
                self._labels,
                self._machine,
                request,
                hubs=self._hubs,
                serves=self._serves,
            )
            answer = await ask(stream, said)
            if not isinstance(answer, Welcome):
                raise Problem(Code.SERVER_UNREACHABLE, "The supervisor has sent another answer than a welcome.")
            if answer.certificate is not None:
                identity.save(answer.certificate, identity.authority_path.read_bytes())
                self._renewed()
            log.info("linked to the supervisor at %s:%d", member.host, member.port)
            if answer.warning:
                log.warning("%s", printable(answer.warning))
            self._last_problem = ""
            self._connection = NodeConnection(program, reader, writer)
            self._is_reached = False
            self._changed.set()
            await self._connection.serve()
            log.warning("the link to the supervisor has ended")
        except OSError as error:
            log.warning("the link to the supervisor broke (%s); the engines keep running", error)
        finally:
            if self._connection is not None:
                self._down_since = time.monotonic()
                self._changed.set()
            self._connection = None
            writer.close()

    def _log(self, problem: Problem) -> None:
        """Log a failed attempt, if it is another one than the last."""
        text = str(problem)
        if text != self._last_problem:
            self._last_problem = text
            log.warning("%s", text)


def retry_seconds(code: str, down_seconds: float, *, is_reached: bool) -> float:
    """The time before the next attempt, in seconds.

    Args:
        code: of the problem of the last attempt; empty: there was a link, which has ended.
        down_seconds: how long there has been no link.
        is_reached: whether a supervisor listened: a quick attempt would only give it more to do.
    """
    if code == Code.NODE_REFUSED:
        return REFUSED_SECONDS
    return RETRY_SECONDS if is_reached or down_seconds > QUICK_FOR_SECONDS else QUICK_SECONDS
