"""Copies the files of weights from other nodes of the cluster, over their front doors. Blocking; runs in threads."""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import node_name
from xinference.hubs.listing import ListedFile
from xinference.hubs.transfer.parallel import Report
from xinference.hubs.transfer.partial_file import PartialFile, git_sha1
from xinference.hubs.transfer.piece_queue import PieceQueue
from xinference.nodes.node import Peer, PeerWeights
from xinference.tcp_keepalive import NODE
from xinference.work_threads import start_thread

log = logging.getLogger(__name__)
#: Maximum time for a connection to a peer, and between two pieces of its answer, in seconds.
CONNECT_SECONDS, SILENT_SECONDS = 3.0, 15.0
#: Maximum time until a peer begins to answer, in seconds: it sends a few files at a time. A peer that has gone is
#: noticed by TCP.
TURN_SECONDS = 600.0
#: Maximum time for a piece of `PIECE_BYTES`, in seconds: a peer that sends a byte now and then is never silent.
PIECE_SECONDS = 60.0
#: Interval at which these times are checked, in seconds.
CHECK_SECONDS = 1.0


class _PeerError(Exception):
    """A peer does not give the rest of a file."""


@dataclass(frozen=True)
class PeerCopy:
    """A `hubs.offer.Copy`: gets each file from one of the peers, and the rest from the next one if that fails.

    Args:
        weights: what the peers have.
        context: TLS with the certificate of this node; read for each file, since a certificate is renewed.
        supervisor_host: the address at which this node reaches the supervisor, which does not know its own.
    """

    weights: PeerWeights
    context: Callable[[], ssl.SSLContext]
    supervisor_host: str = ""

    def __call__(self, file: ListedFile, target: Path, report: Report, stop: threading.Event) -> None:
        expected = file.sha256 or file.git_sha1
        if not expected:
            raise _failed(file, ["the list has no hash of it"])
        first = crc32(file.name.encode()) % len(self.weights.peers)  # files are spread over the peers
        peers = deque((*self.weights.peers[first:], *self.weights.peers[:first]))
        reasons: list[str] = []
        while peers:
            was_begun = target.is_file() and target.stat().st_size > 0
            received = self._append(peers, file, target, report, stop, reasons)
            if received == expected:
                return
            target.unlink()
            report(-file.size)
            # The bytes of an earlier run may be damaged, e.g. by a power cut: then nothing is said of the peer.
            if not was_begun:
                reasons.append(f"{peers.popleft().name}: its file has the hash {received} instead of {expected}")
        raise _failed(file, reasons)

    def _append(
        self,
        peers: deque[Peer],
        file: ListedFile,
        target: Path,
        report: Report,
        stop: threading.Event,
        reasons: list[str],
    ) -> str:
        """Append what is missing of a file; returns the hash of the whole, as hex. Peers that fail leave `peers`."""
        digest = hashlib.sha256 if file.sha256 else partial(git_sha1, file.size)
        with PartialFile(target, file.size, digest, report, stop) as opened:
            while opened.length < file.size:
                if not peers:
                    raise _failed(file, reasons)
                try:
                    self._request(peers[0], file, opened)
                except _PeerError as error:
                    peer = peers.popleft()
                    reasons.append(f"{peer.name}: {error}")
                    log.warning("%s is not copied from the node %s: %s", file.name, peer.name, error)
            return opened.hexdigest()

    def _request(self, peer: Peer, file: ListedFile, opened: PartialFile) -> None:
        connection = _Connection(peer, peer.host or self.supervisor_host, self.context())
        with _peer_errors():
            connection.connect()
        watch = _Watch(connection.sock)
        try:
            with _peer_errors(), watch.at_most(TURN_SECONDS):
                path = f"/w/{self.weights.digest}/{quote(file.name)}"
                connection.request("GET", path, headers={"Range": f"bytes={opened.length}-"})
                answer = connection.getresponse()
            if connection.sock is not None:
                connection.sock.settimeout(SILENT_SECONDS)
            if answer.status != 206:
                raise _PeerError(f"it answered {answer.status}")
            _append_all(answer, opened, file.size, watch)
        finally:
            watch.end()
            connection.close()


def _append_all(answer: http.client.HTTPResponse, opened: PartialFile, size: int, watch: _Watch) -> None:
    """Append an answer to a file."""
    length = opened.length
    with PieceQueue(opened) as pieces:
        while length < size:
            buffer = pieces.buffer()
            with _peer_errors(), watch.at_most(PIECE_SECONDS):
                count = answer.readinto(buffer[: size - length])
            if count == 0:
                raise _PeerError(f"its answer ended after {length} of {size} bytes")
            length += count
            pieces.append(buffer, count)


def _failed(file: ListedFile, reasons: Sequence[str]) -> Problem:
    return Problem(
        Code.PEER_COPY_FAILED,
        f"{file.name} cannot be copied from another node ({'; '.join(reasons)}).",
        hint="`xinference cluster info` shows the nodes.",
    )


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Convert the errors of a connection; those of the file on this node are not the peer's."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _PeerError(str(error) or type(error).__name__) from error


class _Watch:
    """Ends a connection whose other end is too slow, from a thread: the socket's own time limit is one of silence."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = math.inf
        self._is_late = False
        self._ended = threading.Event()
        start_thread("watch a peer", self._run)

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """End the connection if the block takes longer.

        Raises:
            _PeerError: it did.
        """
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = math.inf
            if self._is_late:
                raise _PeerError(f"it is too slow: it has not sent the next part within {seconds:g} s")

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(CHECK_SECONDS):
            if time.monotonic() > self._deadline:
                self._is_late = True
                with suppress(OSError):
                    # Not that of TLS, which would have the reader take what still arrives as plain text.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
                return


class _Connection(http.client.HTTPConnection):
    """A connection to the front door of a node, whose certificate must be that node's."""

    def __init__(self, peer: Peer, host: str, context: ssl.SSLContext) -> None:
        super().__init__(host, peer.port, timeout=SILENT_SECONDS)
        self._context = context
        self._server_name = node_name(peer.node_id)

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        try:
            plain.settimeout(SILENT_SECONDS)
            NODE.set_on(plain)
            self.sock = self._context.wrap_socket(plain, server_hostname=self._server_name)
            self.sock.settimeout(TURN_SECONDS)
        except BaseException:
            plain.close()
            raise
