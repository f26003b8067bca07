"""Copies the files of weights from other nodes of the cluster, over their front doors. Blocking; runs in threads."""

from __future__ import annotations

import hashlib
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import node_name
from xinference.hubs.listing import ListedFile
from xinference.hubs.transfer.parallel import Report
from xinference.hubs.transfer.partial_file import PartialFile, git_sha1
from xinference.nodes.node import Peer, PeerWeights
from xinference.tcp_keepalive import NODE
from xinference.work_threads import start_thread

log = logging.getLogger(__name__)
#: Maximum time for a connection to a peer, and between two pieces of its answer, in seconds.
CONNECT_SECONDS, SILENT_SECONDS = 3.0, 15.0
#: Bytes that are read at once.
PIECE_BYTES = 1 << 20


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
        peers = self.weights.peers
        first = hash(file.name) % len(peers)  # files are spread over the peers
        reasons = []
        for peer in (*peers[first:], *peers[:first]):
            try:
                self._copy_verified(peer, file, target, report, stop)
                return
            except _PeerError as error:
                reasons.append(f"{peer.name}: {error}")
                log.warning("%s is not copied from the node %s: %s", file.name, peer.name, error)
        raise Problem(
            Code.PEER_COPY_FAILED,
            f"{file.name} cannot be copied from another node ({'; '.join(reasons)}).",
            hint="`xinference cluster info` shows the nodes.",
        )

    def _copy_verified(self, peer: Peer, file: ListedFile, target: Path, report: Report, stop: threading.Event) -> None:
        """Append the rest of a file from one peer, and check the whole.

        Bytes of an earlier run may be damaged: if the hash is wrong, the file is copied again from its beginning.
        """
        was_begun = target.is_file() and target.stat().st_size > 0
        expected = file.sha256 or file.git_sha1
        received = self._append(peer, file, target, report, stop)
        if received == expected:
            return
        target.unlink()
        report(-file.size)
        if not was_begun:
            raise _PeerError(f"its file has the hash {received} instead of {expected}")
        self._copy_verified(peer, file, target, report, stop)

    def _append(self, peer: Peer, file: ListedFile, target: Path, report: Report, stop: threading.Event) -> str:
        """Append what is missing of a file; returns the hash of the whole, as hex."""
        if not file.sha256 and not file.git_sha1:
            raise _PeerError("the list has no hash")
        digest = hashlib.sha256 if file.sha256 else partial(git_sha1, file.size)
        with PartialFile(target, file.size, digest, report, stop) as opened:
            if opened.length < file.size:
                self._request(peer, file, opened)
            return opened.hexdigest()

    def _request(self, peer: Peer, file: ListedFile, opened: PartialFile) -> None:
        connection = _Connection(peer, peer.host or self.supervisor_host, self.context())
        try:
            with _peer_errors():
                path = f"/w/{self.weights.digest}/{quote(file.name)}"
                connection.request("GET", path, headers={"Range": f"bytes={opened.length}-"})
                answer = connection.getresponse()
            if answer.status != 206:
                raise _PeerError(f"it answered {answer.status}")
            _append_all(answer, opened, file.size)
        finally:
            connection.close()


def _append_all(answer: http.client.HTTPResponse, opened: PartialFile, size: int) -> None:
    """Append an answer to a file: one piece is hashed and written in a thread while the next one is decrypted."""
    this, other = memoryview(bytearray(PIECE_BYTES)), memoryview(bytearray(PIECE_BYTES))
    begun: Future[None] | None = None
    length = opened.length
    try:
        while length < size:
            with _peer_errors():
                count = answer.readinto(this[: size - length])
            if count == 0:
                raise _PeerError(f"its answer ended after {length} of {size} bytes")
            length += count
            if begun is not None:
                begun.result()
            begun = start_thread("append", opened.append, this[:count])
            this, other = other, this
    finally:
        if begun is not None:
            begun.result()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Convert the errors of a connection; those of the file on this node are not the peer's."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _PeerError(str(error) or type(error).__name__) from error


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
        except BaseException:
            plain.close()
            raise
