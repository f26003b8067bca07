"""Who sent a request on loopback: the kernel's answer about the connection, and the request's own headers."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.cases import in_one_test
from xinference.gateway.auth import peer, socket_tables
from xinference.gateway.auth.peer import find_peer_uid, is_forwarded
from xinference.gateway.auth.socket_tables import Ends, SocketRow, ask_kernel, find_owner, read_answer, read_tables

linux = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="only Linux has these tables")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
HEAD6 = "  sl  local_address                         remote_address                        st ...\n"
ZEROS = "00000000:00000000 00:00000000 00000000"
REST = "1 0000000000000000 20 4 30 10 -1"


def ends(local: str, local_port: int, remote: str, remote_port: int) -> Ends:
    return Ends((ip_address(local), local_port), (ip_address(remote), remote_port))


def words(packed: bytes) -> str:
    """An address as the kernel of this machine writes it."""
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def row(local: str, remote: str, state: str, uid: int, inode: int) -> str:
    (here, port), (there, other) = local.rsplit(":", 1), remote.rsplit(":", 1)
    first = f"{words(ip_address(here).packed)}:{int(port):04X}"
    second = f"{words(ip_address(there).packed)}:{int(other):04X}"
    return f"   0: {first} {second} {state} {ZEROS} {uid:5d}        0 {inode} {REST}\n"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Tables in which 127.0.0.1:5000 is connected to a server on port 9997, whose own end user 7 has."""
    (tmp_path / "tcp").write_text(
        HEAD
        + row("127.0.0.1:9997", "0.0.0.0:0", "0A", 7, 1)
        + row("127.0.0.1:9997", "127.0.0.1:5000", "01", 7, 2)
        + row("127.0.0.1:5000", "127.0.0.1:9997", "01", 1001, 3)
        + row("127.0.0.1:5001", "127.0.0.1:9997", "01", 0, 0)
        + row("127.0.0.1:5002", "127.0.0.1:9997", "06", 0, 0)
        + row("127.0.0.1:5003", "127.0.0.1:9997", "08", 7, 4)
        + row("127.0.0.1:5000", "127.0.0.1:9998", "01", 7, 5)
    )
    (tmp_path / "tcp6").write_text(
        HEAD6
        + row("::1:6000", "::1:9997", "01", 1002, 6)
        + row("::ffff:127.0.0.1:6001", "::ffff:127.0.0.1:9997", "01", 1003, 7)
        + row("::1:6002", "::1:9997", "01", 0, 0)
    )
    return tmp_path


@pytest.mark.parametrize(
    ("local", "port", "owner"),
    [
        ("127.0.0.1", 5000, 1001),
        ("::1", 6000, 1002),
        ("127.0.0.1", 6001, 1003),  # an IPv6 socket with a mapped address
        ("::ffff:127.0.0.1", 6001, 1003),
        ("127.0.0.1", 5001, None),  # closed by its process: the kernel says user 0
        ("127.0.0.1", 5002, None),  # TIME_WAIT: the same
        ("::1", 6002, None),
        ("127.0.0.1", 5003, None),  # CLOSE_WAIT
        ("127.0.0.1", 5009, None),
        ("127.0.0.2", 5000, None),
        ("::1", 5000, None),
    ],
)
def test_the_tables_name_the_maker_of_the_peers_socket(tables: Path, local: str, port: int, owner: int | None) -> None:
    remote = "::1" if local == "::1" else "127.0.0.1"
    assert read_tables(ends(local, port, remote, 9997), tables) == owner


def test_a_kernel_without_ipv6_has_one_table(tables: Path) -> None:
    (tables / "tcp6").unlink()
    assert read_tables(ends("127.0.0.1", 5000, "127.0.0.1", 9997), tables) == 1001
    assert read_tables(ends("::1", 6000, "::1", 9997), tables) is None


def test_without_tables_nobody_is_found(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_tables(ends("127.0.0.1", 5000, "127.0.0.1", 9997), tmp_path)


def answer(state: int, uid: int, inode: int, ports: tuple[int, int] = (5000, 9997)) -> bytes:
    body = struct.pack("=BBBB", socket.AF_INET, state, 0, 0) + struct.pack("!HH", *ports) + b"\0" * 44
    body += struct.pack("=IIIII", 0, 0, 0, uid, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 1) + body


def test_netlinks_answer_is_read() -> None:
    asked = ends("127.0.0.1", 5000, "127.0.0.1", 9997)
    assert read_answer(answer(1, 1001, 9), asked) == SocketRow(1, 1001, 9)
    assert read_answer(answer(10, 1001, 9, (5000, 0)), asked) is None  # a listening socket of that port
    assert SocketRow(1, 1001, 9).owner == 1001
    assert SocketRow(1, 0, 0).owner is None
    assert SocketRow(8, 1001, 9).owner is None
    missing = struct.pack("=IHHII", 36, 2, 0, 1, 1) + struct.pack("=i", -errno.ENOENT) + b"\0" * 16
    assert read_answer(missing, asked) is None
    refused = struct.pack("=IHHII", 36, 2, 0, 1, 1) + struct.pack("=i", -errno.EPERM) + b"\0" * 16
    with pytest.raises(OSError):
        read_answer(refused, asked)
    for odd in (b"", answer(1, 1001, 9)[:40], struct.pack("=IHHII", 16, 3, 0, 1, 1)):
        with pytest.raises(ValueError, match="netlink"):
            read_answer(odd, asked)


@contextmanager
def connected(listen_on: str, connect_to: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a connection on loopback."""
    family = socket.AF_INET6 if ":" in listen_on else socket.AF_INET
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((listen_on, 0), family=family))
        except OSError:
            pytest.skip(f"this machine has no {listen_on}")
        if family == socket.AF_INET6:
            assert not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) or listen_on == "::1"
        client = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in connect_to else socket.AF_INET))
        client.connect((connect_to, listener.getsockname()[1]))
        accepted, _ = listener.accept()
        yield stack.enter_context(accepted), client


PAIRS = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "::ffff:127.0.0.1"),
    ("::1", "::1"),
]


@linux
@pytest.mark.parametrize(("listen_on", "connect_to"), PAIRS)
def test_both_ways_find_the_maker_of_a_real_connection(listen_on: str, connect_to: str) -> None:
    with connected(listen_on, connect_to) as (accepted, _):
        asked = Ends.of_peer(accepted)
        assert read_tables(asked) == os.geteuid()
        assert find_owner(asked) == os.geteuid()
        assert find_peer_uid(accepted) == os.geteuid()


@linux
@pytest.mark.parametrize("close", [False, True])
def test_a_peer_that_has_closed_is_nobody(close: bool) -> None:
    with connected("127.0.0.1", "127.0.0.1") as (accepted, client):
        client.send(b"GET")
        client.close() if close else client.shutdown(socket.SHUT_WR)
        assert accepted.recv(3) == b"GET"
        assert accepted.recv(3) == b""
        assert find_peer_uid(accepted) is None
        assert read_tables(Ends.of_peer(accepted)) is None


@linux
def test_without_netlink_the_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(asked: Ends) -> SocketRow | None:
        raise OSError(errno.EPERM, "no netlink here")

    monkeypatch.setattr(socket_tables, "ask_kernel", refuse)
    with connected("127.0.0.1", "127.0.0.1") as (accepted, _):
        assert find_peer_uid(accepted) == os.geteuid()


@linux
def test_a_kernel_without_inet_diag_knows_not_even_our_own_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_tables, "ask_kernel", lambda asked: None)
    with connected("127.0.0.1", "127.0.0.1") as (accepted, _):
        assert find_peer_uid(accepted) == os.geteuid()


@linux
def test_the_tables_are_not_read_for_a_peer_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_tables, "NET_TABLES", Path("/nowhere"))
    with connected("127.0.0.1", "127.0.0.1") as (accepted, client):
        asked = Ends.of_peer(accepted)
        if ask_kernel(Ends(asked.remote, asked.local)) is None:
            pytest.skip("this kernel has no inet_diag")
        client.close()
        assert accepted.recv(1) == b""
        assert find_owner(asked) is None


@linux
def test_a_system_that_does_not_tell_gives_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in (OSError("no"), ValueError("odd")):

        def fail(asked: Ends, fault: Exception = fault) -> int | None:
            raise fault

        monkeypatch.setattr(peer, "find_owner", fail)
        with connected("127.0.0.1", "127.0.0.1") as (accepted, _):
            assert find_peer_uid(accepted) is None


@linux
def test_a_user_that_this_namespace_does_not_know_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_overflow_uid", os.geteuid)
    with connected("127.0.0.1", "127.0.0.1") as (accepted, _):
        assert find_peer_uid(accepted) is None


def test_another_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with connected("127.0.0.1", "127.0.0.1") as (accepted, _):
        assert find_peer_uid(accepted) is None


@linux
def test_a_unix_socket_has_its_makers_credentials() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert find_peer_uid(ours) == os.geteuid()


@in_one_test(
    ("name", "forwarded"),
    [
        *((name, True) for name in ("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto")),
        *((name, True) for name in ("x-forwarded-host", "x-forwarded-user", "x-forwarded")),
        *((name, False) for name in ("host", "authorization", "x-request-id", "user-agent")),
    ],
)
def test_a_proxys_headers_are_known(name: str, forwarded: bool) -> None:
    assert is_forwarded([(b"accept", b"*/*"), (name.encode(), b"127.0.0.1")]) is forwarded
