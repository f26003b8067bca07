"""A client measures its requests itself, and the server's records agree: over two gateway processes and a restart."""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.support.home import Home
from tests.support.polling import until

UID = "tiny"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello."}]
#: The median time by which the client may see the first content of a stream after the server, in seconds.
TOLERANCE = 0.05


@dataclass
class Measured:
    """One request as its client saw it."""

    number: int
    path: str
    stream: bool
    status: int
    prompt: int | None = None
    output: int | None = None
    first: float | None = None
    left: bool = False


@pytest.fixture(scope="module", params=[1, 2])
def home_and_server(
    request: pytest.FixtureRequest, make_home: Callable[..., Home], tiny: dict[str, Any]
) -> Iterator[tuple[Home, subprocess.Popen[bytes]]]:
    home = make_home(XINFERENCE_GATEWAY_WORKERS=str(request.param))
    server = home.serve()
    answer = home.launch(**tiny | {"n_parallel": 4, "n_ctx": 512, "model_uid": UID})
    assert answer.status_code == 200, answer.text
    yield home, server


def whole(client: httpx2.Client, number: int, path: str, body: dict[str, Any]) -> Measured:
    answer = client.post(path, json={"model": UID, **body})
    measured = Measured(number, path, False, answer.status_code)
    usage = answer.json().get("usage") or {}
    measured.prompt = _prompt(usage)
    measured.output = usage.get("completion_tokens", usage.get("output_tokens"))
    return measured


def streamed(client: httpx2.Client, number: int, path: str, body: dict[str, Any], leave_after: int = 0) -> Measured:
    measured, events = Measured(number, path, True, 0), 0
    began = time.perf_counter()
    with client.stream("POST", path, json={"model": UID, "stream": True, **body}) as answer:
        measured.status = answer.status_code
        for line in answer.iter_lines():
            if not line.startswith("data:") or line.endswith("[DONE]"):
                continue
            event = json.loads(line[5:])
            _read(measured, event, time.perf_counter() - began)
            events += measured.first is not None
            if leave_after and events >= leave_after:
                measured.left = True
                break
    return measured


def _read(measured: Measured, event: dict[str, Any], now: float) -> None:
    usage = event.get("usage") or event.get("response", {}).get("usage") or {}
    usage |= event.get("message", {}).get("usage", {}) if event.get("type") == "message_start" else {}
    measured.prompt = max(_prompt(usage) or 0, measured.prompt or 0) or None
    for name in ("completion_tokens", "output_tokens"):
        measured.output = max(usage.get(name) or 0, measured.output or 0) or None
    texts = [choice.get("text") or choice.get("delta", {}).get("content") for choice in event.get("choices", ())]
    delta = event.get("delta")
    texts.append(delta if isinstance(delta, str) else (delta or {}).get("text"))
    if measured.first is None and any(texts):
        measured.first = now


def _prompt(usage: dict[str, Any]) -> int | None:
    """Anthropic's messages count cached tokens apart."""
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens"])
    cached = usage.get("cache_read_input_tokens", 0)
    return int(usage["input_tokens"]) + int(cached) if "input_tokens" in usage else None


def kinds(client: httpx2.Client) -> list[Callable[[int], Measured]]:
    """Requests of each kind; each takes the number of the request."""
    usage = {"stream_options": {"include_usage": True}}
    chat, text = {"messages": MESSAGES, "max_tokens": 12}, {"prompt": "Once upon a time", "max_tokens": 8}
    return [
        lambda n: whole(client, n, CHAT, chat),
        lambda n: whole(client, n, CHAT, chat | {"n": 3}),
        lambda n: whole(client, n, "/v1/completions", text),
        lambda n: whole(client, n, "/v1/messages", chat),
        lambda n: whole(client, n, "/v1/responses", {"input": "Hi.", "max_output_tokens": 8}),
        lambda n: whole(client, n, CHAT, chat | {"model": "unknown"}),
        lambda n: whole(client, n, CHAT, {"messages": []}),
        lambda n: streamed(client, n, CHAT, chat | usage),
        lambda n: streamed(client, n, CHAT, chat | usage | {"n": 2}),
        lambda n: streamed(client, n, "/v1/completions", text | usage),
        lambda n: streamed(client, n, "/v1/messages", chat),
        lambda n: streamed(client, n, "/v1/responses", {"input": "Hi.", "max_output_tokens": 8}),
        lambda n: streamed(client, n, CHAT, chat),
        lambda n: streamed(client, n, CHAT, chat | {"max_tokens": 200}, leave_after=3),
    ]


@pytest.mark.live
def test_the_records_are_what_a_client_measures(home_and_server: tuple[Home, subprocess.Popen[bytes]]) -> None:
    """Fails if the server loses a record, has one twice, or has other tokens than the engine has reported."""
    home, server = home_and_server
    with httpx2.Client(base_url=home.url, timeout=120, headers={"anthropic-version": "2023-06-01"}) as client:
        before = {each["id"] for each in client.get("/v1/requests?limit=5000").json()}
        makers = kinds(client)
        with ThreadPoolExecutor(4) as pool:
            work = itertools.islice(enumerate(itertools.cycle(makers)), 3 * len(makers))
            measured = list(pool.map(lambda item: item[1](item[0]), work))
        until("all requests have ended", lambda: not client.get("/v1/requests/active").json())
        records = [r for r in client.get("/v1/requests?limit=5000").json() if r["id"] not in before]
        usage = client.get("/v1/usage?by=path,status").json()
    assert len({record["id"] for record in records}) == len(records) == len(measured)
    assert Counter((m.path, m.stream, m.status) for m in measured) == Counter(
        (r["path"], r["stream"], r["status"]) for r in records
    )
    # A short answer may have been complete when its client left.
    assert sum(r["client_left"] for r in records) <= sum(m.left for m in measured)
    told = [m for m in measured if m.output is not None and m.status == 200 and not m.left]
    exact = [r for r in records if r["exact"]]
    seen = Counter((m.path, m.stream, m.prompt, m.output) for m in told)
    recorded_tokens = Counter((r["path"], r["stream"], r["prompt_tokens"], r["output_tokens"]) for r in exact)
    assert seen - recorded_tokens == Counter(), recorded_tokens - seen
    for path in {m.path for m in measured if m.stream}:
        firsts = sorted(m.first for m in measured if m.stream and m.path == path and m.first is not None)
        recorded = sorted(r["first_token"] for r in records if r["stream"] and r["path"] == path and r["first_token"])
        assert len(firsts) == len(recorded)
        later = [seen - sent for seen, sent in zip(firsts, recorded, strict=True)]
        assert min(later) > -0.01 and statistics.median(later) < TOLERANCE, (firsts, recorded)
    for left in (r for r in records if r["client_left"]):
        assert not left["exact"] and left["prompt_tokens"] is None and left["output_tokens"] >= 3
    assert sum(row["requests"] for row in usage) == len(records) + len(before)

    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    home.serve()
    with httpx2.Client(base_url=home.url, timeout=60) as client:
        assert client.get("/v1/usage?by=path,status").json() == usage
        assert client.get("/v1/requests").json() == []
