"""Runs a program to its end, with progress by its output lines, cancellation and a timeout."""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from xinference.child_process import end_group, read_lines, start_child
from xinference.error_codes import Code
from xinference.errors import Problem

_TAIL_LINES = 20
_TICK_SECONDS = 0.5
TIMED_OUT = 124


@dataclass(frozen=True)
class ProgramResult:
    """The end of a program."""

    status: int
    """The exit status of the program, or `TIMED_OUT`."""
    tail: tuple[str, ...]
    """The last lines of its output, oldest first."""

    @property
    def output(self) -> str:
        return "\n".join(self.tail)


def run(
    argv: Sequence[str],
    *,
    variables: Mapping[str, str],
    cancelled: Event,
    what: str,
    timeout: float,
    tick: Callable[[str], None] = lambda line: None,
) -> ProgramResult:
    """Run `argv` in ``/`` and wait for its end; the process has exited when this returns or raises.

    `tick` is called with the program's latest line, about twice a second and with each new line. `timeout` is in
    seconds.

    Raises:
        Problem: 499 ``cancelled``, which names `what`.
    """
    process = start_child(argv, variables, Path("/"))  # no configuration or module of the current folder
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        in_time = _watch(process, tail, tick, cancelled, what, time.monotonic() + timeout)
        status = process.wait() if in_time else TIMED_OUT
    finally:
        end_group(process)
    return ProgramResult(status, tuple(tail))


def _watch(
    process: subprocess.Popen[bytes],
    tail: deque[str],
    tick: Callable[[str], None],
    cancelled: Event,
    what: str,
    deadline: float,
) -> bool:
    """Read the output to its end; False if the deadline passes before."""
    for lines in read_lines(process, _TICK_SECONDS):
        for line in lines:
            tail.append(line)
            tick(line)
        if not lines:
            tick(tail[-1] if tail else "")
        if cancelled.is_set():
            raise Problem(Code.CANCELLED, f"{what} was cancelled.", hint="Start again.")
        if time.monotonic() >= deadline:
            return False
    return True
