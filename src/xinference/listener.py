"""The socket that a server listens on: its address, its port, and whether other machines can reach it."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import psutil

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import InUse, Problem, bad_request
from xinference.hosts import address_of, host_in_url, is_loopback
from xinference.keys.keyring import Keyring
from xinference.tcp_keepalive import CLIENT

log = logging.getLogger(__name__)

#: Number of ports to try after the default one, if that is in use.
PORTS_TRIED = 100
#: An address of no machine (RFC 5737), which the default route serves.
_OTHER_NETWORK = "192.0.2.1"


def check_host(host: str) -> None:
    """Check that a server can listen on `host`, before anything is said about its keys or its port.

    Raises:
        Problem: `host` is no address of this machine, or a name without one.
    """
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as trial:
            trial.bind((host, 0))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise bad_request(
            f"Can't listen on the host {host}: {reason}.",
            hint="Use 127.0.0.1, ::1, or an address of this machine; 0.0.0.0 means all of them.",
        ) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def check_exposure(settings: Settings, keys: Keyring) -> None:
    if is_exposed(settings) and not settings.allow_unauthenticated and not keys.all():
        raise Problem(
            Code.UNPROTECTED,
            f"Listening on {settings.host} without API keys would let everyone who reaches it launch models.",
            hint="Create a key with `xinference keys create`, use --host 127.0.0.1, or pass --allow-unauthenticated "
            "on a private network.",
        )


def is_exposed(settings: Settings) -> bool:
    """Whether other machines can reach the server."""
    return not is_loopback(settings.host)


def address_for_others(host: str) -> str | None:
    """The address at which other machines reach a server that listens on `host`; None: it is not known.

    For the unspecified address, it is that of the route to other networks, else the only one that is not loopback. No
    packet is sent.
    """
    address = address_of(host)
    if address is None or not address.is_unspecified:
        return host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_OTHER_NETWORK, 9))
        return str(probe.getsockname()[0])
    listed = [each for addresses in psutil.net_if_addrs().values() for each in addresses]
    own = {each.address for each in listed if each.family == socket.AF_INET and not is_loopback(each.address)}
    return own.pop() if len(own) == 1 else None


@contextlib.contextmanager
def listen(settings: Settings, port_is_given: bool) -> Iterator[socket.socket]:
    """A listening socket. If the default port is in use, the next free port is taken.

    Raises:
        InUse: the port was given and is in use, or no port is free.
    """
    last = settings.port if port_is_given or settings.port == 0 else min(settings.port + PORTS_TRIED, 65535)
    for port in range(settings.port, last + 1):
        listener = socket.socket(_family(settings.host), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        CLIENT.set_on(listener)
        try:
            listener.bind((settings.host, port))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if port == last:
                raise InUse(
                    Code.PORT_TAKEN,
                    f"Can't listen on {host_in_url(settings.host)}:{port}: {error.strerror}.",
                    hint="Choose another --port, or stop the program that uses this one.",
                ) from None
            continue
        if port != settings.port:
            log.warning(
                "the port %d is in use: this server listens on %d; --port sets another one", settings.port, port
            )
        with listener:
            yield listener
        return
