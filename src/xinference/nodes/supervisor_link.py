"""A worker's link to its supervisor: dials out, says hello, and dials again whenever the link ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import NodeProgram
from xinference.fabric.node_connection import NodeConnection
from xinference.nodes.certificates import NodeIdentity, now
from xinference.nodes.hello import Welcome, hello
from xinference.nodes.joining import Membership, ask, connect

log = logging.getLogger(__name__)
#: Time before the next attempt after a link has ended, and after a refusal, in seconds.
RETRY_SECONDS, REFUSED_SECONDS = 1.0, 10.0


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

    async def run(self, program: NodeProgram) -> None:
        """Keep the link up until the task is cancelled."""
        while True:
            try:
                await self._run_once(program)
                delay = RETRY_SECONDS
            except Problem as problem:
                self._log(problem)
                delay = REFUSED_SECONDS if problem.code == Code.NODE_REFUSED else RETRY_SECONDS
            await asyncio.sleep(delay)

    async def _run_once(self, program: NodeProgram) -> None:
        member, identity = self._membership, self._identity
        request = identity.signing_request() if identity.is_due(now()) else None
        stream = await connect(member.host, member.port, identity.client_context(), member.supervisor)
        reader, writer = stream
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
            assert isinstance(answer, Welcome)  # the only answer to `Hello` that is no refusal
            if answer.certificate is not None:
                identity.save(answer.certificate, identity.authority_path.read_bytes())
                self._renewed()
            log.info("linked to the supervisor at %s:%d", member.host, member.port)
            self._last_problem = ""
            self._connection = NodeConnection(program, reader, writer)
            await self._connection.serve()
            log.warning("the link to the supervisor has ended; the engines run on")
        except OSError as error:
            log.warning("the link to the supervisor broke (%s); the engines run on", error)
        finally:
            if self._connection is not None:
                self._down_since = time.monotonic()
            self._connection = None
            writer.close()

    def _log(self, problem: Problem) -> None:
        """Log a failed attempt, if it is another one than the last."""
        text = str(problem)
        if text != self._last_problem:
            self._last_problem = text
            log.warning("%s", text)
