from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from click.testing import CliRunner, Result

from tests.cli.canned import Canned, serving
from xinference.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("XINFERENCE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def canned() -> Iterator[Canned]:
    with serving() as server:
        yield server


@pytest.fixture
def run(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process against the canned server."""
    monkeypatch.setenv("XINFERENCE_ENDPOINT", canned.url)

    def runner(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, args, input=stdin, prog_name="xinference")

    return runner


@dataclass
class Terminal:
    """The command line in a process of its own, at a pseudo-terminal; stdout is one too, or a pipe."""

    process: subprocess.Popen[bytes]
    fd: int
    seen: str = ""
    _found: int = 0
    """Where the last `until` ended in `seen`."""

    def until(self, text: str) -> None:
        """Read until `text` was shown, behind what was waited for before."""
        while (at := self.seen.find(text, self._found)) < 0:
            self.seen += os.read(self.fd, 4096).decode("utf-8", "replace")
        self._found = at + len(text)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def interrupt_until(self, text: str) -> None:
        """Interrupt until `text` is shown: readline misses a signal that comes just before it waits for a key."""
        while self.seen.find(text, self._found) < 0:
            self.interrupt()
            while self.seen.find(text, self._found) < 0 and select.select([self.fd], [], [], 5)[0]:
                self.seen += os.read(self.fd, 4096).decode("utf-8", "replace")
        self.until(text)

    def interrupt_to_the_end(self) -> int:
        """Interrupt until the process ends; its exit status."""
        while True:
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(5)

    def end(self) -> tuple[int, str]:
        """Exit status, and what went to stdout if that is a pipe."""
        out = self.process.stdout.read().decode() if self.process.stdout else ""
        return self.process.wait(20), out


@pytest.fixture
def terminal(canned: Canned) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str, stdout_is_terminal: bool = False, columns: int = 100) -> Terminal:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "xinference.cli.main", *args],
            stdin=theirs,
            stdout=theirs if stdout_is_terminal else subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "XINFERENCE_ENDPOINT": canned.url, "TERM": "xterm", "COLUMNS": str(columns)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        os.close(theirs)
        opened.append(Terminal(process, ours))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()
        if terminal.process.stdout:
            terminal.process.stdout.close()
        os.close(terminal.fd)


@pytest.fixture
def piped(canned: Canned) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line with pipes instead of a terminal."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "xinference.cli.main", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XINFERENCE_ENDPOINT": canned.url},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
