"""A child process is read line by line, and ends with the process that has started it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen

import psutil
import pytest

from xinference.child_process import end_group, read_lines, start_child

pytestmark = pytest.mark.process


@contextmanager
def child(program: str) -> Iterator[Popen[bytes]]:
    process = start_child([sys.executable, "-c", program], os.environ)
    try:
        yield process
    finally:
        end_group(process)


def lines_of(batches: Iterator[list[str]]) -> Sequence[str]:
    return [line for lines in batches for line in lines]


def test_all_lines_are_read_also_one_that_does_not_end() -> None:
    with child("import sys; print('a\\n\\n  b'); print('c', end='', file=sys.stderr)") as process:
        assert lines_of(read_lines(process, 10)) == ["a", "b", "c"]
        assert process.wait() == 0


def test_a_silent_program_gives_its_reader_a_turn() -> None:
    with child("import time; time.sleep(60)") as process:
        assert next(read_lines(process, 0.01)) == []


def test_the_end_kills_a_process_that_the_program_has_started() -> None:
    program = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    with child(program) as process:
        pid = int(next(lines for lines in read_lines(process, 10) if lines)[0])
        started = psutil.Process(pid)
    psutil.wait_procs([started], timeout=10)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE
