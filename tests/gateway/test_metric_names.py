"""The metrics of what waits, of the choice among replicas, of keys and of gateway processes; and their number."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import pytest
from prometheus_client import Metric

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, router_of, served
from tests.records.samples import record
from tests.routing.routes import route
from xinference.config import Settings
from xinference.gateway.balancer import Balancer
from xinference.gateway.metrics import GONE_SECONDS, Metrics, key_counts
from xinference.records.hub import RecordHub
from xinference.records.key_counts import MAX_KEYS, OTHERS
from xinference.routing.active_requests import ActiveRequest
from xinference.routing.table import RoutingTable, Target

PROMPT = b'{"messages": "' + b"a" * 2000 + b'"}'


class Server:
    """A routing table of one model with two replicas, a balancer, records and a clock."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now = 0.0
        self.targets = (Target("r0", "http://127.0.0.1:1", ""), Target("r1", "http://127.0.0.1:2", ""))
        self.table = RoutingTable(MappingProxyType({"m": route(*self.targets)}))
        self.balancer, self.hub = Balancer(), RecordHub()
        self.active: list[ActiveRequest] = []
        self.metrics = Metrics(
            lambda: self.table,
            lambda: self.balancer,
            self.hub.totals,
            lambda: self.now,
            active=lambda: self.active,
            affinity=self.balancer.take_affinity,
            keys=key_counts(settings or Settings(), self.hub),
        )

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        families: list[Metric] = list(self.metrics.collect())
        found = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in found}


def test_requests_that_wait_are_counted_by_what_they_wait_for() -> None:
    server = Server()
    for number, waits_for in enumerate(("permit", "permit", "load", "")):
        server.active.append(ActiveRequest(str(number), 0.0, "", "m", "", "/x", False, 1.0, None, None, waits_for))
    assert server.samples("xinference_requests_waiting") == {("m", "permit"): 2, ("m", "load"): 1}


def test_the_choice_among_replicas_is_counted_by_its_reason() -> None:
    server = Server()
    first = server.balancer.choose(server.targets, (), PROMPT, "messages")
    assert server.samples("xinference_affinity_total") == {("m", "new"): 1}
    assert first is not None
    server.balancer.choose(server.targets, (), PROMPT, "messages")
    for _ in range(20):
        server.balancer.begin(first)
    server.balancer.choose(server.targets, (), PROMPT, "messages")
    assert server.samples("xinference_affinity_total") == {("m", "new"): 1, ("m", "known"): 1, ("m", "balanced"): 1}
    assert server.samples("xinference_affinity_total") == {("m", "new"): 1, ("m", "known"): 1, ("m", "balanced"): 1}


def test_a_model_of_one_replica_has_no_choice() -> None:
    server = Server()
    server.balancer.choose(server.targets[:1], (), PROMPT, "messages")
    assert server.samples("xinference_affinity_total") == {}


def test_the_counts_of_replicas_and_choices_end_after_the_replicas() -> None:
    server = Server()
    server.balancer.choose(server.targets, (), PROMPT, "messages")
    server.hub.publish(record(replica="r0"))
    server.hub.publish(record(replica=""))
    assert server.samples("xinference_replica_requests_total") == {("m", "r0"): 1}
    server.table = RoutingTable(MappingProxyType({"m": route(server.targets[1])}))
    assert server.samples("xinference_replica_requests_total") == {("m", "r0"): 1}
    server.now = GONE_SECONDS
    assert server.samples("xinference_replica_requests_total") == {}
    assert server.samples("xinference_affinity_total") == {("m", "new"): 1}
    server.table = RoutingTable()
    server.samples("xinference_affinity_total")
    server.now = 2 * GONE_SECONDS
    assert server.samples("xinference_affinity_total") == {}


def test_keys_are_shown_only_if_the_setting_asks_for_them_and_at_most_a_thousand() -> None:
    assert Server().metrics._keys is None
    server = Server(Settings(metrics_per_key=True))
    for number in range(MAX_KEYS + 5):
        server.hub.publish(record(key_id=f"k{number}", prompt_tokens=2, output_tokens=3))
    server.hub.publish(record(key_id="k1", prompt_tokens=None, output_tokens=1))
    requests, tokens = server.samples("xinference_key_requests_total"), server.samples("xinference_key_tokens_total")
    assert len(requests) == len(tokens) == MAX_KEYS + 1
    assert (requests["k1",], tokens["k1",], requests[OTHERS,], tokens[OTHERS,]) == (2, 6, 5, 25)


def test_the_process_and_the_gateway_are_shown() -> None:
    server = Server()
    assert server.samples("xinference_gateway_processes") == {("serving",): 1}
    assert server.samples("process_resident_memory_bytes")[()] > 0
    assert server.samples("process_cpu_seconds_total")[()] > 0


@pytest.mark.process
async def test_no_name_of_an_unknown_model_becomes_a_series() -> None:
    async with start_fake_engine() as engine, served(router_of(engine)) as gateway:
        await gateway.post("/v1/chat/completions", CHAT)
        await gateway.post("/v1/chat/completions", CHAT | {"model": "first"})
        gateway.gateway.recorder.flush()
        before = gateway.gateway.metrics.text().count(b"\nxinference_")
        await asyncio.gather(
            *(gateway.post("/v1/chat/completions", CHAT | {"model": f"unknown-{n}"}) for n in range(200))
        )
        gateway.gateway.recorder.flush()
        text = gateway.gateway.metrics.text()
    assert text.count(b"\nxinference_") == before and b"unknown-" not in text
