"""Two traps: an address that nobody may fetch, and a file that nobody may read."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Of inotify(7).
IN_ACCESS, IN_OPEN = 0x1, 0x20
EVENT_BYTES = 16


@dataclass
class Canaries:
    """The two traps, and what has gone into them."""

    port: int
    file: Path
    fetches: list[bytes] = field(default_factory=list)
    """The first bytes of each connection to the address."""
    _watch: int = -1

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def reads(self) -> int:
        """Number of times the file was opened or read; 0 where the system does not tell."""
        if self._watch < 0:
            return 0
        try:
            return len(os.read(self._watch, 64 * 1024)) // EVENT_BYTES
        except BlockingIOError:
            return 0


@contextlib.contextmanager
def canaries(folder: Path) -> Iterator[Canaries]:
    """Both traps while the block runs."""
    file = folder / "canary-file.png"
    file.write_bytes(b"canary content")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        traps = Canaries(listener.getsockname()[1], file)
        traps._watch = _watch(file)
        ended = threading.Event()
        thread = threading.Thread(target=_listen, args=(listener, traps, ended), daemon=True)
        thread.start()
        try:
            yield traps
        finally:
            ended.set()
            thread.join()
            if traps._watch >= 0:
                os.close(traps._watch)


def _listen(listener: socket.socket, traps: Canaries, ended: threading.Event) -> None:
    listener.settimeout(0.2)
    while not ended.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(1)
            try:
                traps.fetches.append(connection.recv(200))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\ncanary content")
            except OSError:
                traps.fetches.append(b"")


def _watch(file: Path) -> int:
    """A descriptor with an event for each time the file is opened or read; -1 without inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return -1
    watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if libc.inotify_add_watch(watch, os.fsencode(file), IN_ACCESS | IN_OPEN) < 0:
        os.close(watch)
        return -1
    assert struct.calcsize("iIII") == EVENT_BYTES
    return watch
