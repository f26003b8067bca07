"""A pytest plugin that fails a unit test which starts a process or asks another machine.

A unit test is one with neither mark, `process` nor `live`. `make test-unit` runs these alone, so they must be fast and
need nothing but the interpreter. An audit hook of the interpreter sees each start and each connection. It raises in the
function that started the process, and the test fails even if that function catches the exception.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Generator
from typing import Any

import pytest

MARKS = ("process", "live")
_STARTS = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.exec", "pty.spawn"}
)
#: `platform.processor`, of which libraries make a User-Agent, asks this program, once a process.
_ALLOWED = "uname"
_CONNECTIONS = frozenset({"socket.connect", "socket.sendto"})
_LOOK_UP = "socket.getaddrinfo"
#: Most events are of no interest, such as each opened file: one look decides that.
_WATCHED = _STARTS | _CONNECTIONS | {_LOOK_UP}

#: What the unit test that runs has done; None while another kind of test runs, or none.
_violations: list[str] | None = None


class NotAUnitTestError(AssertionError):
    """A unit test has started a process or asked another machine."""


def pytest_configure() -> None:
    sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _violations
    _violations = None if is_marked(item) else []
    try:
        return (yield)
    finally:
        _violations = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    if _violations:
        raise NotAUnitTestError(_violations[0])
    return result


def is_marked(item: pytest.Item) -> bool:
    """Whether a test may start processes."""
    return any(item.get_closest_marker(name) for name in MARKS)


def violation(event: str, args: tuple[Any, ...]) -> str | None:
    """What an audit event has to do with a unit test: None, or what the test must not do."""
    if event in _STARTS and args[:1] != (_ALLOWED,):
        return f"a unit test started a process ({event}: {args[:2]!r}): mark it `process`, or `live`"
    if event in _CONNECTIONS and isinstance(args[1], tuple) and not _is_loopback(args[1][0]):
        return f"a unit test asked another machine: {args[1]!r}"
    if event == _LOOK_UP and args[0] and not _is_loopback(args[0]):
        return f"a unit test looked up the name of another machine: {args[0]!r}"
    return None


def _is_loopback(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in ("localhost", ""):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in _WATCHED or _violations is None:
        return
    found = violation(event, args)
    if found is not None:
        _violations.append(found)
        raise NotAUnitTestError(found)
