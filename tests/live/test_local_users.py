"""Who may manage a server on loopback that has no keys: its own user, and nobody else on the machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.home import Home
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
OTHER_UID = 54321
#: Asks as another user: it gives up root before it connects.
CLIENT = """
import encodings.idna, http.client, json, os, socket, sys  # all before: the other user may not read this Python
address, port, uid, requests = json.loads(sys.argv[1])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
answers = []
for method, path, headers in requests:
    connection = http.client.HTTPConnection(address, port, timeout=30)
    connection.sock = socket.create_connection((address, port), 30)
    connection.request(method, path, headers={"Host": "localhost"} | headers)
    answer = connection.getresponse()
    answers.append([answer.status, answer.read().decode()])
    connection.close()
print(json.dumps(answers))
"""
#: A reverse proxy of another user that adds no header: it passes bytes on.
PROXY = """
import encodings.idna, os, socket, sys, threading
address, port, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.close()
while True:
    client, _ = listener.accept()
    server = socket.create_connection((address, port))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
"""
MANAGE = [
    ["POST", "/v1/models", {"Content-Type": "application/json"}],
    ["GET", "/v1/keys", {}],
    ["POST", "/v1/keys", {}],
    ["GET", "/v1/cache/models", {}],
    ["GET", "/v1/models/x/logs", {}],
    ["DELETE", "/v1/models/x", {}],
    ["DELETE", "/v1/keys", {}],
    ["GET", "/v1/keys", {"X-Xinference-Owner": "1"}],
    ["GET", "/v1/keys", {"Authorization": "Bearer wrong"}],
    ["DELETE", "/v1/clusters", {}],
]
USE = [["GET", "/health", {}], ["GET", "/v1/models", {}], ["GET", "/v1/models/instances", {}], ["GET", "/status", {}]]


def ask(address: str, port: int, uid: int, *requests: list[Any]) -> list[int]:
    """The statuses of these requests, asked by a process of this user."""
    return [status for status, _ in answers(address, port, uid, *requests)]


def answers(address: str, port: int, uid: int, *requests: list[Any]) -> list[tuple[int, str]]:
    """The statuses and texts of the answers to these requests, asked by a process of this user."""
    words = [sys.executable, "-c", CLIENT, json.dumps([address, port, uid, requests])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [(status, text) for status, text in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Home]]:
    homes: list[Home] = []

    def make(**env: str) -> Home:
        homes.append(Home(tmp_path_factory.mktemp("home"), free_port(), env))
        return homes[-1]

    yield make
    for home in homes:
        home.clean_up()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class HomeOnIPv6(Home):
    """A home whose server listens on ::1."""

    @property
    def url(self) -> str:
        return f"http://[::1]:{self.port}"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two gateway processes"])
def home(make_server: Callable[..., Home], request: pytest.FixtureRequest) -> Home:
    home = make_server(XINFERENCE_GATEWAY_WORKERS=request.param)
    home.serve()
    return home


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_another_user_has_nothing_of_manage_and_the_own_user_everything(home: Home, address: str) -> None:
    assert ask(address, home.port, OTHER_UID, *MANAGE) == [401] * len(MANAGE)
    assert ask(address, home.port, OTHER_UID, *USE) == [200] * len(USE)
    own = [["GET", "/v1/keys", {}], ["GET", "/v1/cache/models", {}], ["DELETE", "/v1/models/x", {}]]
    assert ask(address, home.port, 0, *own) == [200, 200, 404]
    assert home.answers()


def test_another_user_reads_no_path_of_the_server(home: Home) -> None:
    paths = httpx2.get(f"{home.url}/openapi.json").json()["paths"]
    gets = [path for path, methods in paths.items() if "get" in methods and "{" not in path and path != "/v1/watch"]
    asked = answers("127.0.0.1", home.port, OTHER_UID, *[["GET", path, {}] for path in gets])
    assert "/status" in gets and sum(status == 200 for status, _ in asked) > 10
    assert [path for path, (_, text) in zip(gets, asked, strict=True) if str(home.path) in text] == []
    assert str(home.path) in answers("127.0.0.1", home.port, 0, ["GET", "/status", {}])[0][1]


def test_a_server_on_ipv6_tells_users_apart_too(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    home = HomeOnIPv6(tmp_path, free_port(), {"XINFERENCE_HOST": "::1"})
    try:
        home.serve()
        assert ask("::1", home.port, OTHER_UID, *MANAGE) == [401] * len(MANAGE)
        assert ask("::1", home.port, 0, ["GET", "/v1/keys", {}]) == [200]
    finally:
        home.clean_up()


def test_a_reverse_proxy_of_another_user_gets_nothing_for_the_own_user(home: Home) -> None:
    words = [sys.executable, "-c", PROXY, "127.0.0.1", str(home.port), str(OTHER_UID)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
            for uid in (0, OTHER_UID):
                assert ask("127.0.0.1", port, uid, *MANAGE) == [401] * len(MANAGE)
                assert ask("127.0.0.1", port, uid, *USE) == [200] * len(USE)
        finally:
            proxy.kill()


def test_a_request_that_was_forwarded_is_refused(home: Home) -> None:
    for name in ("Forwarded", "X-Forwarded-For", "Via", "X-Real-IP"):
        assert ask("127.0.0.1", home.port, 0, ["GET", "/v1/keys", {name: "x"}]) == [403]


def test_the_owners_key_opens_the_server_for_who_can_read_it(home: Home) -> None:
    key = (home.path / "owner.key").read_text()
    headers = {"Authorization": f"Bearer {key}"}
    assert ask("127.0.0.1", home.port, OTHER_UID, ["GET", "/v1/keys", headers]) == [200]
    assert home.cli("keys", "list").returncode == 0
