"""What Prometheus is told."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, STREAM, Served, route, router_of, served, target
from xinference.errors import Problem

pytestmark = pytest.mark.process

PATH = "/v1/chat/completions"


async def scrape(gateway: Served) -> dict[tuple[str, ...], float]:
    async with gateway.http.get(f"{gateway.url}/metrics") as response:
        assert response.status == 200 and response.headers["content-type"].startswith("text/plain")
        text = await response.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


async def test_requests_are_counted_by_model_path_and_status() -> None:
    async with start_fake_engine() as engine, served(router_of(engine)) as gateway:
        for body in (CHAT, CHAT, CHAT | {"model": "n"}, {}):
            await gateway.post(PATH, body)
        found = await scrape(gateway)
    assert found["xinference_requests_total", "m", PATH, "200"] == 2
    assert found["xinference_requests_total", "", PATH, "404"] == 1
    assert found["xinference_requests_total", "", PATH, "400"] == 1
    assert found["xinference_request_seconds_count", "m", PATH, "false"] == 2
    assert found["xinference_request_seconds_sum", "m", PATH, "false"] > 0
    assert found["xinference_prompt_tokens_total", "m"] == 14 and found["xinference_output_tokens_total", "m"] == 10
    assert found["xinference_tokens_total", "m"] == 24
    assert found["xinference_requests_in_flight", "m", "r0"] == 0
    assert found["xinference_replica_requests_total", "m", "r0"] == 2
    assert found["xinference_replica_up", "m", "r0"] == 1


async def test_the_speed_of_streams_is_measured() -> None:
    async with start_fake_engine(interval=0.01) as engine, served(router_of(engine)) as gateway:
        await gateway.stream(PATH, STREAM)
        await gateway.stream(PATH, STREAM | {"model": "n"})
        found = await scrape(gateway)
    for name in ("xinference_time_to_first_token_seconds", "xinference_time_per_output_token_seconds"):
        assert found[f"{name}_count", "m"] == 1 and found[f"{name}_sum", "m"] > 0
        assert found[f"{name}_bucket", "+Inf", "m"] == 1
        assert (f"{name}_count", "") not in found, "only of answers"


async def test_each_model_has_one_state() -> None:
    async with start_fake_engine() as engine:
        router = router_of(engine)
        router.publish(
            route(target(engine)),
            route(uid="coming"),
            route(
                uid="gone",
                problem=Problem(
                    "x",
                    "It failed.",
                    status=503,
                ),
            ),
            route(uid="back", recovering=True),
            route(uid="off", unloaded=True),
        )
        async with served(router) as gateway:
            found = await scrape(gateway)
    states = {name[1]: name[2] for name in found if name[0] == "xinference_model_state"}
    assert states == {"m": "ready", "coming": "loading", "gone": "failed", "back": "recovering", "off": "unloaded"}
    assert (found["xinference_replicas_ready", "m"], found["xinference_replicas_ready", "coming"]) == (1, 0)
