"""An independent client measures mixed requests itself, and the server's records agree with each of them.

Every body has a length of its own, so the record of each request is found by its bytes. 60 requests by default;
``make measure-requests`` sends 400.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.built_environments import has_environment, link_environments
from tests.support.measuring_client import BASE_BYTES, Ask, Measured, send
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

REQUESTS = int(os.environ.get("REQUESTS", "60"))
#: How much later than the server the client may see the first content of a stream; 2 ms earlier is wrong at any load.
#: The difference has the way through the kernel and the wait of a process for a core. So the median of the requests
#: that ran alone is held to it on a quiet machine (`make measure-requests`), and the least disturbed tenth in the gate.
LATER_SECONDS, EARLIER_SECONDS = 0.002, 0.002
SHARE = 0.5 if "REQUESTS" in os.environ else 0.1
CHAT = "/v1/chat/completions"
HF = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
HI = [{"role": "user", "content": "Hello."}]
USAGE = {"stream_options": {"include_usage": True}}
#: Models of the fake engine, by their uids.
SHAPES: dict[str, dict[str, Any]] = {
    "v": {"shape": {"engine": "vLLM", "cached": 16}, "interval": 0.003},
    "v-thinks": {"shape": {"engine": "vLLM", "thoughts": 4}, "interval": 0.003},
    "v-calls": {"shape": {"engine": "vLLM", "calls": 2}, "interval": 0.003, "chunks": 0},
    "s": {"shape": {"engine": "SGLang", "cached": 8}, "interval": 0.003},
    "s-thinks": {"shape": {"engine": "SGLang", "thoughts": 3}, "interval": 0.003},
    "s-calls": {"shape": {"engine": "SGLang", "calls": 1}, "interval": 0.003, "chunks": 0},
    "long": {"shape": {"engine": "vLLM"}, "interval": 0.02, "chunks": 500},
    "fails": {"status": 500, "body": {"error": {"message": "out of luck", "type": "server_error"}}},
}


@dataclass
class World:
    """A server, and the kinds of requests that its models can answer."""

    home: ScriptedHome
    asks: list[Ask]
    workers: int


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two gateway processes"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("home")
    link_environments(folder)
    env = {"XINFERENCE_GATEWAY_WORKERS": str(request.param)}
    home = ScriptedHome(folder, free_port(), env, Path(tiny["model_path"]))
    try:
        home.start()
        answer = home.launch(**tiny | {"n_parallel": 4, "n_ctx": 512, "model_uid": "llama"})
        assert answer.status_code == 200, answer.text
        models = ["llama"]
        if has_environment(folder, "Transformers"):
            fields = {"model_name": "llama-2-chat", "model_format": "pytorch", "quantization": "none"}
            launch = {**fields, "model_engine": "Transformers", "model_path": str(HF), "model_uid": "torch"}
            answer = httpx2.post(f"{home.url}/v1/models", json=launch | {"context_length": 300}, timeout=600)
            assert answer.status_code == 200, answer.text
            models.append("torch")
        for uid, script in SHAPES.items():
            answer = home.post_launch(uid, script=script)
            assert answer.status_code == 200, answer.text
        yield World(home, [*_real(models), *_shaped(), *_failing(), *_ended_early(home)], request.param)
    finally:
        home.clean_up()


def _real(models: list[str]) -> Iterator[Ask]:
    chat, text = {"messages": HI, "max_tokens": 12}, {"prompt": "Once upon a time", "max_tokens": 8}
    for model in models:
        named = {"model": model}
        yield Ask("whole", CHAT, named | chat)
        yield Ask("stream", CHAT, named | chat | USAGE | {"stream": True})
        yield Ask("stream without usage", CHAT, named | chat | {"stream": True})
        yield Ask("whole text", "/v1/completions", named | text)
        yield Ask("stream of text", "/v1/completions", named | text | USAGE | {"stream": True})
        yield Ask("response", "/v1/responses", named | {"input": "Hi.", "max_output_tokens": 8, "stream": True})
    llama = {"model": "llama"}
    yield Ask("whole, n = 3", CHAT, llama | chat | {"n": 3})
    yield Ask("stream, n = 2", CHAT, llama | chat | USAGE | {"n": 2, "stream": True})
    yield Ask("message", "/v1/messages", llama | chat)
    yield Ask("stream of a message", "/v1/messages", llama | chat | {"stream": True})


def _shaped() -> Iterator[Ask]:
    for model in ("v", "v-thinks", "v-calls", "s", "s-thinks", "s-calls"):
        body = {"model": model, "messages": HI}
        yield Ask(f"{model}: whole", CHAT, body)
        yield Ask(f"{model}: stream", CHAT, body | USAGE | {"stream": True})
        yield Ask(f"{model}: stream without usage", CHAT, body | {"stream": True})
    for model in ("v", "s"):
        yield Ask(f"{model}: n = 2", CHAT, {"model": model, "messages": HI, "n": 2})
        yield Ask(f"{model}: stream, n = 2", CHAT, {"model": model, "messages": HI, "n": 2, "stream": True} | USAGE)


def _failing() -> Iterator[Ask]:
    yield Ask("unknown model", CHAT, {"model": "unknown", "messages": HI})
    yield Ask("wrong body", CHAT, {"model": "llama", "messages": []})
    yield Ask("engine fails", CHAT, {"model": "fails", "messages": HI})
    yield Ask("too long", "/v1/completions", {"model": "llama", "prompt": "word " * 700, "max_tokens": 4})


def _ended_early(home: ScriptedHome) -> Iterator[Ask]:
    body = {"model": "long", "messages": HI, "stream": True}

    def abort() -> None:
        active = httpx2.get(f"{home.url}/v1/requests/active", timeout=30).json()
        mine = max((each for each in active if each["model"] == "long"), key=lambda each: each["started"])
        assert httpx2.post(f"{home.url}/v1/requests/{mine['id']}/abort", timeout=30).status_code < 300

    yield Ask("left in mid-stream", CHAT, body, leave_after=5)
    yield Ask("aborted in mid-stream", CHAT, body, leave_after=5, then=abort)


def send_all(world: World, count: int, first: int) -> list[Measured]:
    """Send requests of all kinds in turn: each kind alone at least once, and the rest four at a time."""
    port, alone = world.home.port, min(count, 2 * len(world.asks), max(len(world.asks), count // 2))
    asks = list(itertools.islice(itertools.cycle(world.asks), count))
    numbered = list(enumerate(asks, first))
    measured = [send(port, number, ask, alone=True) for number, ask in numbered[:alone]]
    # An abort chooses the newest request, so it has no other one beside it.
    together = [(number, ask) for number, ask in numbered[alone:] if ask.then is None]
    with ThreadPoolExecutor(4) as pool:
        measured += pool.map(lambda item: send(port, *item), together)
    return measured + [send(port, number, ask) for number, ask in numbered[alone:] if ask.then is not None]


def records_of(home: ScriptedHome) -> dict[int, list[dict[str, Any]]]:
    """The records by the number of the request."""
    with httpx2.Client(base_url=home.url, timeout=60) as client:
        until("all requests have ended", lambda: not client.get("/v1/requests/active").json())
        found: dict[int, list[dict[str, Any]]] = {}
        for record in client.get("/v1/requests?limit=5000").json():
            found.setdefault(record["bytes_in"] - BASE_BYTES, []).append(record)
    return found


def check(measured: list[Measured], records: dict[int, list[dict[str, Any]]]) -> None:
    """Each request has one record, with what its client saw."""
    assert {each.number for each in measured} == records.keys(), "nothing is missing, and nothing is more"
    wrong = []
    for each in measured:
        (record, *twice) = records[each.number]
        assert not twice, f"{each.kind} has {len(twice) + 1} records"
        expected = {
            "path": each.path,
            "stream": each.stream,
            "status": each.status,
            # The model of a body that could not be read is not known.
            "model": None if each.kind in ("unknown model", "wrong body") else each.model,
            "client_left": each.left,
        }
        if each.output is not None and not each.left and "aborted" not in each.kind:
            expected |= {"exact": True, "output_tokens": each.output}
            expected |= {} if each.prompt is None else {"prompt_tokens": each.prompt}
            expected |= {"cached_tokens": each.cached} if each.cached else {}
        elif (
            each.stream and each.status == 200 and "response" not in each.kind and each.model not in ("llama", "torch")
        ):
            # Not reported by the engine: an estimate, of what the client had seen at least.
            expected |= {"exact": False, "prompt_tokens": None}
            assert record["output_tokens"] >= each.contents > 0, (each, record)
        if "aborted" in each.kind:
            assert record["code"] == "request_aborted", record
        elif each.status >= 400:
            expected |= {"output_tokens": None, "exact": False}
            assert record["code"], record
        differs = {name: (record[name], value) for name, value in expected.items() if record[name] != value}
        if differs:
            wrong.append((each.kind, each.model, differs))
    assert not wrong, wrong


def later_by(measured: list[Measured], records: dict[int, list[dict[str, Any]]]) -> list[float]:
    """How much later than the server the client saw each first content."""
    for each in measured:
        if each.stream and each.status == 200:
            assert (each.first is None) == (records[each.number][0]["first_token"] is None), each
    return [
        each.first - records[each.number][0]["first_token"]
        for each in measured
        if each.alone and each.first is not None
    ]


def test_the_records_are_what_an_independent_client_measures(
    world: World, record_property: Callable[..., None]
) -> None:
    home, before = world.home, records_of(world.home)
    assert not before
    measured = send_all(world, REQUESTS, first=1)
    records = records_of(home)
    check(measured, records)
    later = sorted(later_by(measured, records))
    near = sum(-EARLIER_SECONDS <= seconds <= LATER_SECONDS for seconds in later)
    models = ", ".join(sorted({each.model for each in measured}))
    print(
        f"\n{world.workers} process(es), {len(measured)} requests, {len(world.asks)} kinds, models {models}; "
        f"first content of {len(later)} streams alone: client later by median {statistics.median(later) * 1e3:.2f} ms, "
        f"by {later[int(0.9 * len(later))] * 1e3:.2f} ms in nine of ten; {near} within 2 ms, "
        f"from {later[0] * 1e3:.2f} to {later[-1] * 1e3:.2f} ms"
    )
    assert later[int(SHARE * len(later))] <= LATER_SECONDS and later[0] >= -EARLIER_SECONDS, later

    # Nothing is lost or counted twice by a restart: the totals are stored, and new requests are added to them.
    with httpx2.Client(base_url=home.url, timeout=60) as client:
        usage = client.get("/v1/usage?by=model,path,status").json()
    assert sum(row["requests"] for row in usage) == len(measured)
    assert sum(row["output_tokens"] for row in usage) == sum(
        record["output_tokens"] or 0 for each in records.values() for record in each
    )
    assert home.server is not None
    home.server.send_signal(signal.SIGTERM)
    assert home.server.wait(60) == 0
    home.start()
    more = send_all(world, 20, first=REQUESTS + 1)
    after = records_of(home)
    check(more, after)
    with httpx2.Client(base_url=home.url, timeout=60) as client:
        total = client.get("/v1/usage?by=model,path,status").json()
    assert sum(row["requests"] for row in total) == len(measured) + len(more)
    assert _tokens(total) - _tokens(usage) == _tokens_of(after)


def _tokens(usage: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in usage:
        found["prompt"] += row["prompt_tokens"]
        found["output"] += row["output_tokens"]
    return found


def _tokens_of(records: dict[int, list[dict[str, Any]]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (record,) in records.values():
        found["prompt"] += record["prompt_tokens"] or 0
        found["output"] += record["output_tokens"] or 0
    return found
