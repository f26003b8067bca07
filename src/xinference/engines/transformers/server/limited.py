"""Runs chat templates and the compilation of grammars in processes that are killed after a deadline."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("limited_worker.py")
#: Number of processes that work at the same time: some of them may be occupied up to their deadline.
WORKERS = 4
SECONDS = 5.0
#: Additional time for the first piece of work, in which a process imports its libraries.
STARTING_SECONDS = 20.0
LENGTH_BYTES = 8
PIECE = 1024 * 1024


class LimitError(Exception):
    """The work exceeded a limit, which the text names."""


class WorkFailedError(Exception):
    """The template or the grammar is wrong; the text is its error message."""


class Worker:
    """One process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._is_new = True

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            LimitError: it took too long, or the process ended.
        """
        data = json.dumps(request).encode()
        until = time.monotonic() + seconds + (STARTING_SECONDS if self._is_new else 0)
        self._is_new = False
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            self._process.stdin.flush()
        except OSError:
            raise LimitError("more memory or time than one request may use") from None
        length = int.from_bytes(self._read(LENGTH_BYTES, until, seconds), "big")
        answer: dict[str, Any] = json.loads(self._read(length, until, seconds))
        return answer

    def end(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue

    def _read(self, size: int, until: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        descriptor, pieces = self._process.stdout.fileno(), bytearray()
        while len(pieces) < size:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise LimitError(f"more than {seconds:g} seconds")
            # The descriptor and not the buffered pipe: select does not know the bytes in its buffer.
            piece = os.read(descriptor, min(size - len(pieces), PIECE))
            if not piece:
                raise LimitError("more memory or time than one request may use")
            pieces += piece
        return bytes(pieces)


class Workers:
    """A pool of processes, each started when it is first needed; used from several threads."""

    def __init__(self, number: int = WORKERS, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(number):
            self._free.put(None)

    def do(self, work: str, **request: Any) -> Any:
        """The result of a piece of work; waits for a free process.

        Raises:
            LimitError: the work exceeded a limit.
            WorkFailedError: the template or the grammar is wrong.
        """
        worker = self._free.get()
        try:
            worker = worker or Worker()
            answer = worker.ask({"work": work, **request}, self._seconds)
        except BaseException:
            if worker is not None:
                worker.end()
                worker = None
            raise
        finally:
            self._free.put(worker)
        if "limit" in answer:
            raise LimitError(answer["limit"])
        if "error" in answer:
            raise WorkFailedError(answer["error"])
        return answer["result"]
