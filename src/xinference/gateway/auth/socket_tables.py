"""Finds the owner of a TCP socket of this machine: by Linux's netlink socket monitoring, or in its socket tables.

sock_diag(7) and inet_diag describe the first, proc_pid_net(5) the second. Both report the user who made the socket. The
kernel reports user 0 and inode 0 for a socket that its process has closed, so such a socket has no owner here.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address

NET_TABLES = Path("/proc/self/net")
#: The state of a connection that neither side has closed, in the tables, in inet_diag and in ``TCP_INFO``.
ESTABLISHED = 1

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_NO_COOKIE = 0xFFFFFFFF
#: ``nlmsghdr``: length, type, flags, number, port.
_HEADER = struct.Struct("=IHHII")
#: ``inet_diag_req_v2`` without its socket id: family, protocol, extensions, padding, states.
_QUESTION = struct.Struct("=BBBBI")
#: ``inet_diag_sockid``: ports and addresses of both ends, in network order; interface and cookie.
_PORTS = struct.Struct("!HH")
_COOKIE = struct.Struct("=III")
#: ``inet_diag_msg``: family and state, then the socket id, then expiry, both queues, user and inode.
_STATE = struct.Struct("=BBBB")
_SOCKET_ID_BYTES = 48
_OWNER = struct.Struct("=IIIII")
_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class SocketRow:
    """What the kernel reports of a socket."""

    state: int
    user: int
    inode: int

    @property
    def owner(self) -> int | None:
        """The user who made the socket, if a process holds it and its connection is complete."""
        return self.user if self.state == ESTABLISHED and self.inode else None


@dataclass(frozen=True)
class Ends:
    """The two ends of a connection, from the side whose socket is looked for."""

    local: tuple[Address, int]
    remote: tuple[Address, int]

    @classmethod
    def of_peer(cls, connection: socket.socket) -> Ends:
        """The ends of the peer's socket.

        Raises:
            OSError: the connection has ended.
            ValueError: it is not a TCP connection.
        """
        return cls(_end(connection.getpeername()), _end(connection.getsockname()))


def find_owner(ends: Ends) -> int | None:
    """The user id of the process that made this socket; None if there is no such socket that is in use.

    Raises:
        OSError: the system has neither netlink nor socket tables.
        ValueError: it answers in a form that is not known.
    """
    with suppress(OSError):  # a sandbox without netlink
        found = ask_kernel(ends)
        # "No such socket" is also the answer of a kernel without inet_diag. Our own end exists.
        if found is not None or ask_kernel(Ends(ends.remote, ends.local)) is not None:
            return found.owner if found else None
    return read_tables(ends)


def ask_kernel(ends: Ends) -> SocketRow | None:
    """A socket by netlink, in any state: one look-up of the kernel, however many sockets there are.

    Raises:
        OSError: this system has no such interface.
        ValueError: the answer has an unknown form.
    """
    netlink = getattr(socket, "AF_NETLINK", None)
    if netlink is None:
        raise OSError(errno.EAFNOSUPPORT, "no netlink")
    with socket.socket(netlink, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_TIMEOUT_SECONDS)
        kernel.send(_question(ends))
        return read_answer(kernel.recv(8192), ends)


def read_tables(ends: Ends, folder: Path = NET_TABLES) -> int | None:
    """`find_owner` by the text of ``tcp`` and ``tcp6`` in `folder`.

    An IPv4 connection of an IPv6 socket is in ``tcp6``, with mapped addresses.

    Raises:
        OSError: there are no tables.
        ValueError: a row has an unknown form.
    """
    owner = _find_row((folder / "tcp").read_text(), ends) if _is_ipv4(ends) else None
    table6 = folder / "tcp6"
    if owner is None and table6.exists():  # a kernel without IPv6 has none
        owner = _find_row(table6.read_text(), Ends(_mapped(ends.local), _mapped(ends.remote)))
    return owner


def _end(name: object) -> tuple[Address, int]:
    """An end of a connection by its socket name; a mapped address is an IPv4 address."""
    if not isinstance(name, tuple):
        raise ValueError(f"{name!r} is not a TCP address")
    address = ip_address(str(name[0]).partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, int(name[1])


def _is_ipv4(ends: Ends) -> bool:
    return ends.local[0].version == 4 and ends.remote[0].version == 4


def _mapped(end: tuple[Address, int]) -> tuple[Address, int]:
    address, port = end
    return (IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed) if address.version == 4 else address), port


# -- netlink --------------------------------------------------------------------------------------------------------


def _question(ends: Ends) -> bytes:
    if not _is_ipv4(ends):
        ends = Ends(_mapped(ends.local), _mapped(ends.remote))
    family = socket.AF_INET if _is_ipv4(ends) else socket.AF_INET6
    body = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, _NO_COOKIE) + _socket_id(ends)
    body += _COOKIE.pack(0, _NO_COOKIE, _NO_COOKIE)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


def _socket_id(ends: Ends) -> bytes:
    addresses = b"".join(end[0].packed.ljust(16, b"\0") for end in (ends.local, ends.remote))
    return _PORTS.pack(ends.local[1], ends.remote[1]) + addresses


def read_answer(answer: bytes, ends: Ends) -> SocketRow | None:
    """The socket in an answer of netlink; None if there is none with these ends.

    Raises:
        OSError: the answer is an error, except that of a missing socket.
        ValueError: the answer has an unknown form.
    """
    start = _HEADER.size
    try:
        kind = _HEADER.unpack_from(answer)[1]
        if kind == _NLMSG_ERROR:
            (number,) = struct.unpack_from("=i", answer, start)
            if -number == errno.ENOENT:
                return None
            raise OSError(-number, "the kernel has refused the question for a socket")
        if kind != _SOCK_DIAG_BY_FAMILY:
            raise ValueError(f"netlink answers with a message of type {kind}")
        _, state, _, _ = _STATE.unpack_from(answer, start)
        id_at = start + _STATE.size
        ports = _PORTS.unpack_from(answer, id_at)
        _, _, _, user, inode = _OWNER.unpack_from(answer, id_at + _SOCKET_ID_BYTES)
    except struct.error as error:
        raise ValueError(f"netlink answers with {len(answer)} bytes") from error
    # The kernel answers with a listening socket where it knows no connection.
    return SocketRow(state, user, inode) if ports == (ends.local[1], ends.remote[1]) else None


# -- the tables -----------------------------------------------------------------------------------------------------


def _find_row(table: str, ends: Ends) -> int | None:
    start = f" {_hex_end(ends.local)} {_hex_end(ends.remote)} "
    at = table.find(start)
    if at < 0:
        return None
    # State, queues, timer, retransmissions; then user, time-out and inode.
    state, _, _, _, user, _, inode, *_ = table[at + len(start) :].split("\n", 1)[0].split()
    return SocketRow(int(state, 16), int(user), int(inode)).owner


def _hex_end(end: tuple[Address, int]) -> str:
    """An end as the tables write it: each word of the address as a number of this machine's byte order."""
    address, port = end
    words = struct.unpack(f"={len(address.packed) // 4}I", address.packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
