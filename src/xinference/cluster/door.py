"""The port of a supervisor to which its nodes connect: lets machines join by a token, and takes the links of nodes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator

import msgspec

from xinference import __version__
from xinference.cluster.members import Members
from xinference.cluster.rows import ClusterRows, new_node_id
from xinference.error_codes import Code
from xinference.errors import Problem, system_reason
from xinference.fabric.frames import FrameError, read_frame, to_frame
from xinference.fabric.stream_fabric import StreamFabric
from xinference.hosts import node_name
from xinference.nodes.certificates import ClusterAuthority, key_fingerprint, now, peer_node
from xinference.nodes.hello import (
    HELLO_SECONDS,
    MAX_FIRST_MESSAGE,
    Hello,
    Join,
    Joined,
    Refusal,
    Welcome,
    printable,
    refusal_of,
)
from xinference.nodes.join_tokens import parse_token, use_token
from xinference.task_set import TaskSet
from xinference.tcp_keepalive import NODE
from xinference.tls_listener import HandshakeLimits, TlsListener, bind

log = logging.getLogger(__name__)
#: Maximum time for the connection with which the supervisor tries the data port of a node, in seconds.
TRIAL_SECONDS = 3.0
HANDSHAKES = HandshakeLimits(seconds=HELLO_SECONDS)
#: Maximum number of connections without a certificate of a node that wait for their first message.
MAX_STRANGERS = 64
_DECODER = msgspec.msgpack.Decoder(Join | Hello)


class ClusterDoor:
    """Answers the first message of each connection."""

    def __init__(
        self,
        rows: ClusterRows,
        authority: ClusterAuthority,
        members: Members,
        fabric: StreamFabric,
        epoch: int,
        machine: str,
        client_context: Callable[[], ssl.SSLContext],
    ) -> None:
        """`machine` is the id of this machine if the supervisor runs models on it; else empty.

        `client_context` gives the TLS of connections to nodes.
        """
        self._rows = rows
        self._authority = authority
        self._members = members
        self._fabric = fabric
        self._epoch = epoch
        self._machine = machine
        self._client_context = client_context
        self._strangers: dict[asyncio.Task[None], None] = {}
        """The connections without a certificate that wait, the longest wait first."""
        self._greeting: dict[str, asyncio.Task[None]] = {}
        """The connection of each node that waits."""
        self.greeted: Callable[[], None] = lambda: None
        """Called after each hello of a node."""
        self._tasks = TaskSet()
        self._port: TlsListener | None = None
        self.removed: set[str] = {row.node_id for row in rows.nodes() if row.removed is not None}
        """The nodes whose certificates are refused."""

    async def open(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port.

        Raises:
            OSError: the port is in use.
        """
        listener = bind(host, port)
        self._port = TlsListener(listener, self._create_protocol, context, HANDSHAKES)
        self._port.open()
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and end all links."""
        if self._port is not None:
            self._port.close()
        await self._tasks.end()

    def _create_protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        NODE.set_on(writer.get_extra_info("socket"))
        node_id: str | None = None
        try:
            with self._place(_node_of(writer)):
                async with asyncio.timeout(HELLO_SECONDS):
                    node_id = await self._greet(reader, writer)
            if node_id is not None:
                await self._fabric.serve(node_id, reader, writer)
        except (FrameError, OSError) as error:  # TimeoutError is an OSError
            log.warning("a connection to the port of the cluster ended: %s", error or type(error).__name__)
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    @contextlib.contextmanager
    def _place(self, node_id: str | None) -> Iterator[None]:
        """The place of a connection that waits for its first message; `node_id` is that of its certificate.

        A new one always gets a place: machines that say nothing must not keep nodes and other machines out. The one
        that has waited longest is closed for it, of the same node or of all without a certificate.
        """
        task = asyncio.current_task()
        assert task is not None
        if node_id is None:
            if len(self._strangers) >= MAX_STRANGERS:
                longest = next(iter(self._strangers))
                del self._strangers[longest]
                longest.cancel()
            self._strangers[task] = None
        else:
            if (earlier := self._greeting.get(node_id)) is not None:
                earlier.cancel()
            self._greeting[node_id] = task
        try:
            yield
        finally:
            self._strangers.pop(task, None)
            if node_id is not None and self._greeting.get(node_id) is task:
                del self._greeting[node_id]

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        """Answer the first message; returns the node whose link this is, or None."""
        message = await read_frame(reader, _DECODER, MAX_FIRST_MESSAGE)
        if message is None:
            return None
        node_id = None
        try:
            if isinstance(message, Join):
                answer: Joined | Welcome = self._join(message)
            else:
                node_id, answer = await self._welcome(message, writer)
        except Problem as problem:
            log.warning("a node is refused: %s", problem.cause)
            writer.write(to_frame(Refusal(problem.to_dict())))
            await writer.drain()
            return None
        writer.write(to_frame(answer))
        await writer.drain()
        return node_id

    def _join(self, message: Join) -> Joined:
        """Give a machine the certificate of a node.

        Raises:
            Problem: the token is refused, or the node was removed.
        """
        token = parse_token(message.token)
        row = next((each for each in self._rows.tokens() if each.token_id == token.token_id), None)
        used = use_token(row, token, time.time())
        key_hash = key_fingerprint(message.request)
        node_id = self._rows.node_of_key(key_hash) or new_node_id()
        if node_id in self.removed:
            raise _removed(node_id)
        certificate = self._authority.issue(message.request, node_id, now())
        name = printable(message.name)
        self._rows.add_node(node_id, name, key_hash, used)
        added = next((row for row in self._rows.nodes() if row.node_id == node_id), None)
        if added is None:
            raise _refused("The machine", "the stored row of its node is damaged; the supervisor's log names it")
        self._members.add(added)
        log.info("node %s (%s) has joined", node_id, name)
        return Joined(node_id, certificate)

    async def _welcome(self, said: Hello, writer: asyncio.StreamWriter) -> tuple[str, Welcome]:
        """Take a node, if it may be taken.

        Raises:
            Problem: 403 ``node_refused``, with the reason.
        """
        node_id = _node_of(writer)
        known = {row.node_id: row for row in self._rows.nodes()}
        if node_id is None or node_id not in known:
            raise _refused("The machine", "it has no certificate of a node of this cluster")
        if node_id in self.removed:
            raise _removed(node_id)
        if (reason := refusal_of(said, time.time(), self._machine)) is not None:
            raise _refused(f"The node {node_id} ({printable(said.name)})", reason)
        await self._try_front_door(node_id, said.front_door)
        renewed = None
        if said.request is not None:
            if self._rows.node_of_key(key_fingerprint(said.request)) != node_id:
                raise _refused(f"The node {node_id}", "it asks for a certificate for another key")
            renewed = self._authority.issue(said.request, node_id, now())
        self._members.add(known[node_id])
        self._rows.note_hello(node_id, said.name, said.labels)
        self._members.note_hello(
            node_id,
            said.name,
            said.labels,
            said.front_door,
            said.version,
            said.interface,
            said.hubs,
            said.serves,
            said.machine,
        )
        self.greeted()
        return node_id, Welcome(self._epoch, __version__, renewed, self._warning_of(node_id, said.machine))

    def _warning_of(self, node_id: str, machine: str) -> str:
        """The warning of a machine that has several workers; empty: it has one."""
        others = self._members.others_on(machine, node_id)
        if not others:
            return ""
        warning = (
            f"The node {node_id} is on the same machine as {', '.join(each.node_id for each in others)}: each of them "
            "plans with all of its memory. Run one worker on a machine."
        )
        log.warning("%s", warning)
        return warning

    async def _try_front_door(self, node_id: str, address: str) -> None:
        """Connect to the data port of a node, as the gateway will do for each request, and check who answers.

        At a loopback address, this machine's own data port would answer.
        """
        host, _, port = address.rpartition(":")
        try:
            context = await asyncio.to_thread(self._client_context)
            async with asyncio.timeout(TRIAL_SECONDS):
                _, writer = await asyncio.open_connection(
                    host.strip("[]"), int(port), ssl=context, server_hostname=node_name(node_id)
                )
            writer.close()
        except ssl.SSLError:
            raise _refused(
                f"The node {node_id}",
                f"another program answers at its data port {address}: name the address of the node at which the "
                "supervisor reaches it with `xinference-worker --host`",
            ) from None
        except (OSError, ValueError) as error:
            raise _refused(
                f"The node {node_id}",
                f"the supervisor cannot connect to its data port {address} ({system_reason(error)}): open the "
                "port in the firewall of the node, or name another address with `xinference-worker --host`",
            ) from None


def _node_of(writer: asyncio.StreamWriter) -> str | None:
    """The node in the certificate of a connection; None: it shows none of a node."""
    peer = peer_node(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    return None if peer is None else peer[0]


def _removed(node_id: str) -> Problem:
    return Problem(
        Code.NODE_REFUSED,
        f"The node {node_id} was removed from the cluster.",
        hint="Delete the folder `cluster` in the home of the worker, and join with a new token.",
    )


def _refused(who: str, reason: str) -> Problem:
    return Problem(Code.NODE_REFUSED, f"{who} is refused: {reason}.")
