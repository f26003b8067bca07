"""The counts of a model have an end: some time after it is gone."""

from __future__ import annotations

from types import MappingProxyType

from tests.records.samples import record
from xinference.gateway.balancer import Balancer
from xinference.gateway.metrics import GONE_SECONDS, Metrics
from xinference.records.totals import Totals
from xinference.routing.table import Route, RoutingTable


class Server:
    """A routing table and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table = RoutingTable()
        self.totals = Totals(lambda: self.now)
        self.metrics = Metrics(lambda: self.table, Balancer, self.totals, lambda: self.now)

    def run(self, *uids: str) -> None:
        """Let these models run, and no other."""
        routes = {
            uid: Route(uid, engine="", model_type="LLM", model_name=uid, context_length=None, created=0.0)
            for uid in uids
        }
        self.table = RoutingTable(MappingProxyType(routes))

    def answer(self, uid: str) -> None:
        self.totals.add(record(model=uid, ended=self.now))


def test_the_counts_of_a_model_stay_for_a_while_after_it_is_gone() -> None:
    server = Server()
    server.run("kept", "gone")
    for uid in ("kept", "gone", ""):
        server.answer(uid)
    server.run("kept")
    assert b'model="gone"' in server.metrics.text()
    server.now = GONE_SECONDS - 1
    assert b'model="gone"' in server.metrics.text()
    server.now = GONE_SECONDS
    text = server.metrics.text()
    assert b'model="gone"' not in text
    assert b'model="kept"' in text and b'xinference_requests_total{model="",' in text


def test_a_model_that_comes_back_in_time_keeps_its_counts() -> None:
    server = Server()
    server.answer("m")
    server.metrics.text()
    server.now = GONE_SECONDS - 1
    server.run("m")
    server.metrics.text()
    server.now = 2 * GONE_SECONDS
    assert b'model="m"' in server.metrics.text()


def test_counts_that_no_one_reads_have_an_end_too() -> None:
    server = Server()
    for number in range(1000):
        server.now += GONE_SECONDS / 100
        server.answer(f"m{number}")
        if number % 10 == 0:  # the server does so every minute
            server.metrics.remove_old()
    assert len(server.totals.since_start()) <= 250
