"""Which hosts are this machine, for everything that asks: the server's exposure, the origin check and the clients."""

from __future__ import annotations

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.hosts import is_loopback, is_this_machine
from xinference.listener import is_exposed

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
