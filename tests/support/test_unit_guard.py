from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import unit_guard
from tests.support.unit_guard import NotAUnitTestError, violation


@contextmanager
def refused(message: str) -> Iterator[None]:
    """The guard raises in this block, and forgets it: this test does it on purpose."""
    with pytest.raises(NotAUnitTestError, match=message):
        yield
    assert unit_guard._violations
    unit_guard._violations.clear()


def start_program() -> object:
    return subprocess.run([sys.executable, "-c", ""], check=True)


def fork() -> object:
    return os.fork() or os._exit(0)


def spawn() -> object:
    return os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})


@pytest.mark.parametrize("start", [start_program, fork, spawn])
def test_a_unit_test_cannot_start_a_process(start: Callable[[], object]) -> None:
    with refused("mark it `process`"):
        start()


@pytest.mark.process
def test_a_test_with_the_mark_can() -> None:
    assert start_program()


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80), ("hub.invalid", 80)])
def test_a_unit_test_cannot_ask_another_machine(address: tuple[str, int]) -> None:
    with refused("another machine"):
        socket.create_connection(address, timeout=0.1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "0.0.0.0"])
def test_loopback_is_this_machine(host: str) -> None:
    assert violation("socket.connect", (None, (host, 80))) is None


PROGRAM_THAT_CATCHES = """
import subprocess, sys

def test_it():
    try:
        subprocess.run([sys.executable, "-c", ""])
    except AssertionError:
        pass
"""


@pytest.mark.process
def test_a_unit_test_that_catches_what_the_guard_raises_fails_all_the_same(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(PROGRAM_THAT_CATCHES)
    result = pytester.runpytest_subprocess("-p", "tests.support.unit_guard", "-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(failed=1)
