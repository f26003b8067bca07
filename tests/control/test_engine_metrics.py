"""The metrics of engines: passed on under their own names, and read as one common set."""

from __future__ import annotations

import asyncio
import re
from types import MappingProxyType

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.routing.routes import route
from xinference.control.engine_metrics import MAX_BYTES, EngineScraper, EngineSilentError
from xinference.control.exposition import MAX_SAMPLES, TooManySamplesError, joined, read
from xinference.engines.dialects import DIALECTS
from xinference.engines.engine_metrics import EngineFigures
from xinference.routing.table import RoutingTable, Target

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 40.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 120.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 60.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 30.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 20.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 2.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.75
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="",tp_rank="0"} 2.0
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="-1",tp_rank="0"} 1.0
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="0",tp_rank="0"} 1.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",priority="",tp_rank="0"} 1.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",priority="0",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.75
sglang:prompt_tokens_total{is_streaming="true",model_name="m"} 60.0
sglang:prompt_tokens_total{is_streaming="false",model_name="m"} 40.0
sglang:cached_tokens_total{cache_source="device",model_name="m"} 10.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 5.0
sglang:generation_tokens_total{model_name="m"} 70.0
sglang:num_retracted_requests_total{model_name="m"} 1.0
"""
LLAMA = """\
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 31
llamacpp:prompt_tokens_cached_total 9
llamacpp:tokens_predicted_total 12
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""
SLOTS = b"""[{"id":0,"n_ctx":100,"is_processing":false,"n_prompt_tokens":80},
{"id":1,"n_ctx":100,"is_processing":true,"n_prompt_tokens":50,"params":{"seed":1}}]"""
TRANSFORMERS = """\
xinference_transformers_running 1
xinference_transformers_waiting 0
xinference_transformers_prompt_tokens_total 5
xinference_transformers_generated_tokens_total 6
xinference_transformers_spec_decode_num_draft_tokens_total 4
xinference_transformers_spec_decode_num_accepted_tokens_total 3
"""
TEXTS = {"vLLM": VLLM, "SGLang": SGLANG, "llama.cpp": LLAMA, "Transformers": TRANSFORMERS}


class Engines:
    """Engines by replica, and what each of them answers."""

    def __init__(self, *engines: str) -> None:
        self.asked: list[str] = []
        self.answers = {f"r{n}": TEXTS[engine].encode() for n, engine in enumerate(engines)}
        self.silent: dict[str, str] = {}
        self.now = 0.0
        routes = {
            f"m{n}": route(Target(f"r{n}", "http://127.0.0.1:1", "key"), uid=f"m{n}", engine=engine)
            for n, engine in enumerate(engines)
        }
        self.table = RoutingTable(MappingProxyType(routes))
        self.scraper = EngineScraper(lambda: self.table, self.fetch, lambda: self.now)

    async def fetch(self, target: Target, path: str) -> bytes:
        self.asked.append(target.replica_id + path)
        if target.replica_id in self.silent:
            raise EngineSilentError(self.silent[target.replica_id])
        return SLOTS if path == "/slots" else self.answers[target.replica_id]

    async def samples(self) -> list[Sample]:
        text = await self.scraper.text()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    async def value(self, name: str, **labels: str) -> float | None:
        found = [s for s in await self.samples() if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) < 2, found
        return found[0].value if found else None


@pytest.mark.parametrize(
    ("engine", "figures"),
    [
        ("vLLM", EngineFigures(3, 4, 0.375, 100, 40, 3, 120, 60, 30, 20)),
        ("SGLang", EngineFigures(2, 1, 0.75, 100, 15, 1, 100, 70)),
        ("llama.cpp", EngineFigures(1, 2, 0.25, 40, 9, None, 40, 12)),
        ("Transformers", EngineFigures(1, 0, None, None, None, None, 5, 6, 4, 3)),
    ],
)
async def test_the_common_figures_of_each_engine(engine: str, figures: EngineFigures) -> None:
    (replica,) = await Engines(engine).scraper.replicas()
    assert replica.figures == figures


def test_each_engine_reports_metrics() -> None:
    assert {name for name, dialect in DIALECTS.items() if dialect.metrics.path} == set(TEXTS)


async def test_lines_are_passed_on_under_their_own_names_with_model_and_replica() -> None:
    engines = Engines("vLLM", "llama.cpp")
    bucket = "vllm:time_to_first_token_seconds_bucket"
    assert await engines.value(bucket, le="+Inf", model="m0", replica="r0", model_name="m", engine="0") == 2
    assert await engines.value("llamacpp:prompt_tokens_total", model="m1", replica="r1") == 31
    assert await engines.value("xinference_engine_running", model="m0", replica="r0", engine="vLLM") == 3
    assert await engines.value("xinference_engine_running", model="m1", replica="r1", engine="llama.cpp") == 1
    assert await engines.value("xinference_engine_up", model="m1") == 1


async def test_the_samples_of_one_name_follow_each_other() -> None:
    text = await Engines("vLLM", "SGLang", "vLLM").scraper.text()
    endings = re.compile("_(bucket|count|sum)$")
    names = [endings.sub("", line.partition("{")[0]) for line in text.splitlines() if not line.startswith("#")]
    groups = [name for n, name in enumerate(names) if not n or names[n - 1] != name]
    assert len(groups) == len(set(groups))
    assert text.count("# TYPE vllm:num_requests_running gauge\n") == 1


async def test_an_engine_without_an_answer_is_left_out_and_counted() -> None:
    engines = Engines("vLLM", "vLLM")
    engines.silent["r0"] = "timeout"
    assert await engines.value("xinference_engine_up", model="m0") == 0
    assert await engines.value("xinference_engine_up", model="m1") == 1
    assert await engines.value("vllm:num_requests_waiting", model="m0") is None
    assert await engines.value("xinference_engine_running", model="m0") is None
    assert await engines.value("xinference_engine_scrape_failures_total", model="m0", reason="timeout") == 1
    engines.now = 10.0
    assert await engines.value("xinference_engine_scrape_failures_total", model="m0", reason="timeout") == 2


async def test_llama_cpp_is_not_left_out_if_only_its_slots_are_not_answered() -> None:
    engines = Engines("llama.cpp")
    answered = engines.fetch

    async def without_slots(target: Target, path: str) -> bytes:
        if path == "/slots":
            raise EngineSilentError("timeout")
        return await answered(target, path)

    scraper = EngineScraper(lambda: engines.table, without_slots)
    (replica,) = await scraper.replicas()
    assert replica.figures == EngineFigures(1, 2, None, 40, 9, None, 40, 12)


async def test_several_readers_cost_as_much_as_one() -> None:
    engines = Engines("vLLM")
    await asyncio.gather(*(engines.scraper.text() for _ in range(5)))
    engines.now = 1.9
    await engines.scraper.text()
    assert engines.asked == ["r0/metrics"]
    engines.now = 2.0
    await engines.scraper.text()
    assert len(engines.asked) == 2


async def test_the_failures_of_a_model_end_with_it() -> None:
    engines = Engines("vLLM")
    engines.silent["r0"] = "refused"
    assert "scrape_failures_total{" in await engines.scraper.text()
    engines.table, engines.now = RoutingTable(), 10.0
    assert "scrape_failures_total{" not in await engines.scraper.text()


HOSTILE = """\
good{model="other",x="a,model=\\"b\\"",replica="r"} 1
good{x="unfinished} 2
xinference_engine_up{model="m9"} 1
not a sample
two words 1
bad{x="1"} one
# TYPE good nonsense
# HELP
"""


def test_only_valid_lines_are_passed_on_and_no_engine_writes_our_labels_or_names() -> None:
    labels = {"model": 'm "1"\n', "replica": "r0"}
    text = joined([read(HOSTILE, labels, "xinference_engine_")])
    assert text == (
        'good{exported_model="other",x="a,model=\\"b\\"",exported_replica="r",model="m \\"1\\"\\n",replica="r0"} 1\n'
    )
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels["model"] == 'm "1"\n'


def test_an_engine_with_too_many_samples_is_refused() -> None:
    text = "".join(f'x{{n="{n}"}} 1\n' for n in range(MAX_SAMPLES + 1))
    with pytest.raises(TooManySamplesError):
        read(text, {}, "xinference_engine_")


async def test_an_engine_with_too_many_samples_is_left_out() -> None:
    engines = Engines("vLLM")
    engines.answers["r0"] = b"".join(b'x{n="%d"} 1\n' % n for n in range(MAX_SAMPLES + 1))
    assert await engines.value("xinference_engine_scrape_failures_total", reason="too_large") == 1


@pytest.mark.process
async def test_engines_that_hang_refuse_or_never_end_do_not_hold_the_answer_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x 1\n" * (MAX_BYTES // 2))
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Authorization: Bearer key" in head
        body = VLLM.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    servers = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (hang, refuse, flood, answer)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    routes = {
        f"m{n}": route(Target(f"r{n}", f"http://127.0.0.1:{port}", "key"), uid=f"m{n}", engine="vLLM")
        for n, port in enumerate([*ports, 1])
    }
    table = RoutingTable(MappingProxyType(routes))
    async with asyncio.timeout(30):
        replicas = await EngineScraper(lambda: table).replicas()
    for server in servers:
        server.close()
    assert [each.problem for each in replicas] == ["timeout", "refused", "too_large", "", "unreachable"]
