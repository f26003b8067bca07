"""The first messages on a connection of a node: it requests a certificate, or identifies itself by its own."""

from __future__ import annotations

import platform
import re
import time
from typing import Any

import msgspec
import psutil

from xinference import __version__
from xinference.nodes.membership import CLOCK_SECONDS

#: The version of the messages between a node and its supervisor. Another major version is refused.
PROTOCOL = (1, 0)
#: Maximum bytes of the first message of a connection whose other end is not known yet.
MAX_FIRST_MESSAGE = 64 * 1024
#: Maximum time for the first message and for its answer, in seconds.
HELLO_SECONDS = 10.0
#: Maximum characters of a text in a hello, and maximum number of labels and hubs.
MAX_TEXT, MAX_LABELS = 255, 64
#: The host in an address: a name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,32})?\]", re.ASCII)


class Join(msgspec.Struct, tag="join", frozen=True):
    """A machine without a certificate wants one."""

    token: str
    request: bytes
    """A signing request, as PEM."""
    name: str
    """The machine's host name."""


class Joined(msgspec.Struct, tag="joined", frozen=True):
    """The machine is a node of the cluster now."""

    node_id: str
    certificate: bytes


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """What a node says of itself before its first event."""

    protocol: tuple[int, int]
    version: str
    python: str
    name: str
    front_door: str
    """``host:port`` of its data port."""
    clock: float
    """Seconds since the epoch."""
    machine: str = ""
    """The id of the machine; empty: not known."""
    labels: dict[str, str] = {}
    interface: str = ""
    """The network interface that has the address of `front_door`; empty: not known."""
    hubs: list[str] | None = None
    """The hubs from which it may fetch weights; None: it does not say, and tries."""
    request: bytes | None = None
    """A signing request, if the node's certificate is to be renewed."""
    serves: str = ""
    """``host:port`` at which it takes the requests of clients; empty: it takes none."""


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """The supervisor takes the node."""

    epoch: int
    version: str
    certificate: bytes | None = None
    """The renewed certificate."""
    warning: str = ""
    """What the operator of the node should know; empty: nothing."""


class Refusal(msgspec.Struct, tag="refusal", frozen=True):
    """The supervisor does not take the machine."""

    problem: dict[str, Any]


def interface_of(address: str) -> str:
    """The network interface that has an address; empty: none has it."""
    found = psutil.net_if_addrs().items()
    return next((name for name, listed in found if any(each.address == address for each in listed)), "")


def hello(
    name: str,
    front_door: str,
    labels: dict[str, str],
    machine: str,
    request: bytes | None,
    clock: float | None = None,
    hubs: list[str] | None = None,
    serves: str = "",
) -> Hello:
    """The hello of this process."""
    return Hello(
        PROTOCOL,
        __version__,
        platform.python_version(),
        name,
        front_door,
        time.time() if clock is None else clock,
        machine,
        labels,
        interface_of(front_door.rpartition(":")[0].strip("[]")),
        hubs,
        request,
        serves,
    )


def printable(text: str) -> str:
    """A name of a machine for people: it goes to terminals and metrics, and its machine may say anything."""
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_TEXT])


def refusal_of(said: Hello, clock: float, machine: str) -> str | None:
    """Why a node is not taken; None: it is taken. `clock` and `machine` are those of the supervisor."""
    if said.protocol[0] != PROTOCOL[0]:
        older = "the node" if said.protocol[0] < PROTOCOL[0] else "the supervisor"
        return (
            f"it speaks version {said.protocol[0]} of the protocol (Xinference {said.version}), and the supervisor "
            f"version {PROTOCOL[0]} (Xinference {__version__}): upgrade {older}"
        )
    if (unreadable := _unreadable(said)) is not None:
        return f"its {unreadable} is not a text of at most {MAX_TEXT} printable characters, or has too many entries"
    for what, address in (("data port", said.front_door), ("port for clients", said.serves)):
        if (address or what == "data port") and not _is_address(address):
            return f"the address of its {what} is {address!r}, and not HOST:PORT"
    if not abs(said.clock - clock) <= CLOCK_SECONDS:  # also if it is no number
        return (
            f"its clock differs from the supervisor's by {abs(said.clock - clock):.0f} s, and may differ by "
            f"{CLOCK_SECONDS:g} s: set both by NTP"
        )
    if machine and said.machine == machine:
        return (
            "it is on the machine of the supervisor, which runs models itself: its memory would be promised twice. "
            "Start the supervisor with --no-models to run a worker beside it"
        )
    return None


def _unreadable(said: Hello) -> str | None:
    """The part of a hello that is no text for people, or is too long; None: all are."""
    parts = {
        "name": (said.name,),
        "version": (said.version, said.python),
        "address": (said.front_door, said.serves, said.interface),
        "list of labels": (*said.labels, *said.labels.values()),
        "list of hubs": tuple(said.hubs or ()),
    }
    for part, texts in parts.items():
        if len(texts) > 2 * MAX_LABELS or any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
            return part
    return None


def _is_address(text: str) -> bool:
    """Whether a text is a host and a port, of which an URL can be made."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        return False
    return _HOST.fullmatch(host) is not None
