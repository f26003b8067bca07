"""A server at a Unix socket that is deleted listens there again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import until_async
from xinference.gateway.http import server as module
from xinference.gateway.http.server import http_server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="xi-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _answers(path: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("with_folder", [False, True])
async def test_a_deleted_socket_is_created_again(
    folder: Path, with_folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DATE_SECONDS", 0.01)
    path = folder / "run" / "management.sock"
    path.parent.mkdir()
    server = http_server(_app, uds=str(path))
    monkeypatch.setattr(server, "install_signal_handlers", lambda: None, raising=False)
    serving = asyncio.create_task(server.serve())
    await until_async("it answers", lambda: _answers(path))
    shutil.rmtree(path.parent) if with_folder else path.unlink()
    await until_async("it answers again", lambda: _answers(path))
    server.stop()
    await asyncio.wait_for(serving, 30)
