"""Child processes for work with a result: started in a session of their own, read line by line, ended as a group.

They end with this process, too, however it ends.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from xinference import exec_child


def start_child(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program, with its output and its errors in one pipe."""
    return subprocess.Popen(
        [sys.executable, "-I", exec_child.__file__, str(os.getpid()), *argv],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def read_lines(process: subprocess.Popen[bytes], seconds: float) -> Iterator[list[str]]:
    """The new lines of the output that are not empty, until it ends; after `seconds` without output an empty list."""
    assert process.stdout is not None
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(seconds):
                yield []
                continue
            data = os.read(process.stdout.fileno(), 65536)
            *lines, unfinished = (unfinished + data).split(b"\n")
            texts = (line.decode(errors="replace").strip() for line in (lines if data else [*lines, unfinished]))
            yield [text for text in texts if text]
            if not data:
                return


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the remaining processes of the group, reap the process and close its output."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
