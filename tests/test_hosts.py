"""Which hosts are this machine, for everything that asks: the server's exposure, the origin check and the clients."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.hosts import is_loopback, is_server_url, is_this_machine
from xinference.listener import address_for_others, is_exposed

LOOPBACK = [
    "127.0.0.1",
    "127.0.0.2",
    "127.9.9.9",
    "::1",
    "[::1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
]
UNSPECIFIED = ["0.0.0.0", "::", "[::]"]
ELSEWHERE = ["192.168.0.2", "::2", "models.example", "localhost.example", "127.0.0.1.example", "127.1", ""]


@in_one_test("host", [*LOOPBACK, "::ffff:127.0.0.1"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host) and is_this_machine(host)


@pytest.mark.parametrize("host", UNSPECIFIED)
def test_the_unspecified_address_is_reached_from_elsewhere_but_connects_to_this_machine(host: str) -> None:
    assert not is_loopback(host) and is_this_machine(host)


@in_one_test("host", ELSEWHERE)
def test_another_host_is_neither(host: str) -> None:
    assert not is_loopback(host) and not is_this_machine(host)


@in_one_test("host", [*LOOPBACK, *UNSPECIFIED, *ELSEWHERE])
async def test_a_server_checks_origins_exactly_if_it_is_not_exposed(host: str) -> None:
    exposed = is_exposed(Settings(host=host))
    async with gateway_of(HandMadeRouter(), host=host) as gateway:
        answer = await call(gateway, "/health", method="GET", headers={"host": "models.example"})
    assert answer.status == (200 if exposed else 403)
    assert exposed == (host not in LOOPBACK)


def test_without_a_route_to_other_networks_the_only_address_is_that_for_other_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_route(*arguments: object) -> None:
        raise OSError(101, "Network is unreachable")

    def listed(address: str) -> SimpleNamespace:
        return SimpleNamespace(family=socket.AF_INET, address=address)

    monkeypatch.setattr("socket.socket", no_route)
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"lo": [listed("127.0.0.1")], "eth0": [listed("10.0.0.7")]})
    assert address_for_others("0.0.0.0") == "10.0.0.7"


def test_other_machines_reach_a_server_at_the_address_on_which_it_listens() -> None:
    assert address_for_others("10.0.0.7") == "10.0.0.7"


@pytest.mark.parametrize("url", ["ftp://gpu", "http://gpu:99970", "http://gpu:0", "http://", "http://gpu:x"])
def test_a_url_without_a_host_or_with_a_port_that_does_not_exist_is_of_no_server(url: str) -> None:
    assert not is_server_url(url)
