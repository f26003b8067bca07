"""Start a fake engine for one test and end it with all its children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.polling import until_async
from tests.support.ports import free_port

ENGINE = Path(__file__).with_name("engine.py")


@dataclass(frozen=True)
class FakeEngine:
    """A running fake engine."""

    base_url: str
    """``http://127.0.0.1:port``, no trailing slash."""
    api_key: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def stats(self) -> dict[str, int]:
        """``{"requests", "cancelled", "chunks_sent"}`` so far."""
        value = await asyncio.to_thread(_get_json, f"{self.base_url}/stats")
        assert isinstance(value, dict)
        return value


@contextlib.asynccontextmanager
async def start_fake_engine(
    *, api_key: str = "fake-key", port: int | None = None, wait: bool = True, **script: Any
) -> AsyncIterator[FakeEngine]:
    """Run `engine.py` with `script` (see its `DEFAULTS`) while the block runs.

    With `wait`, the block begins when /health has answered, whatever its status.
    """
    port = port or free_port()
    argv = [sys.executable, str(ENGINE), "--port", str(port), "--script", json.dumps(script)]
    process = subprocess.Popen(argv, env=os.environ | {"FAKE_ENGINE_KEY": api_key}, start_new_session=True)
    engine = FakeEngine(f"http://127.0.0.1:{port}", api_key, process)
    try:
        if wait:
            await _wait_listening(engine)
        yield engine
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def _wait_listening(engine: FakeEngine) -> None:
    async def listens() -> bool:
        assert engine.process.poll() is None, f"the fake engine ended with {engine.process.returncode}"
        try:
            await asyncio.to_thread(_get_json, f"{engine.base_url}/health")
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    await until_async("the fake engine opens its port", listens)


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)
