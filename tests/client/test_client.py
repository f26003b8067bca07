from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, events, problem, serving
from xinference.client import Client
from xinference.client.answers import ModelLoading, ServerSentEvents
from xinference.client.client import is_loopback
from xinference.errors import Problem


@pytest.fixture
def canned() -> Iterator[Canned]:
    with serving() as server:
        yield server


@pytest.fixture
def client(canned: Canned) -> Iterator[Client]:
    with Client(canned.url) as client:
        yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_constructor_sends_nothing(canned: Canned) -> None:
    Client(canned.url).close()
    assert canned.asked == []


def test_a_launch_sends_what_was_given_and_leaves_the_rest_out(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m"})
    assert client.launch_model("llama", model_format="ggufv2", n_gpu=None, n_ctx=512) == "m"
    (asked,) = canned.asked
    assert asked.query == "wait_ready=true"
    assert asked.body == {
        "model_name": "llama",
        "model_type": "LLM",
        "model_format": "ggufv2",
        "replica": 1,
        "n_gpu": None,
        "n_ctx": 512,
    }


def test_a_plan_is_asked_for_as_a_dry_run(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"version": "v"})
    assert client.plan_launch("llama", quantization="Q4_0") == {"version": "v"}
    assert canned.asked[0].query == "dry_run=true"


def test_the_key_is_sent_as_a_bearer(canned: Canned) -> None:
    with Client(canned.url, "sk-1") as client:
        client.health()
    assert canned.asked[0].headers["authorization"] == "Bearer sk-1"


def test_a_uid_with_odd_characters_is_one_part_of_the_path(canned: Canned, client: Client) -> None:
    canned.answers["DELETE", "/v1/models/a%2Fb%20c"] = Answer(None)
    client.terminate_model("a/b c")


def test_the_servers_problem_is_raised_as_it_is(canned: Canned, client: Client) -> None:
    canned.answers["GET", "/v1/models/x"] = problem(
        404, "model_not_found", "no x", stage="start", hint="try y", log_tail=["a", "b"]
    )
    with pytest.raises(Problem) as raised:
        client.describe_model("x")
    assert raised.value.to_dict() == {
        "code": "model_not_found",
        "status": 404,
        "cause": "no x",
        "stage": "start",
        "hint": "try y",
        "log_tail": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"detail": "no such thing"}, "no such thing"),
        ({"detail": [{"loc": ["body", "replica"], "msg": "not a number"}]}, "body.replica: not a number"),
        ({"error": {"message": "too long", "code": "context"}}, "too long"),
        ({"error": "plain"}, "plain"),
    ],
)
def test_other_error_bodies_are_problems_too(canned: Canned, client: Client, body: Any, cause: str) -> None:
    canned.answers["GET", "/v1/models"] = Answer(body, 400)
    with pytest.raises(Problem) as raised:
        client.list_models()
    assert (raised.value.cause, raised.value.status) == (cause, 400)


def test_a_plain_server_error_is_told_with_its_text(canned: Canned, client: Client) -> None:
    canned.answers["GET", "/v1/models"] = Answer("Internal Server Error", 500, "text/plain")
    with pytest.raises(Problem, match="answered 500: Internal Server Error"):
        client.list_models()


def test_a_loading_model_says_when_to_ask_again(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/chat/completions"] = Answer(
        {"error": {"message": "loading"}}, 503, headers={"retry-after": "2"}
    )
    with pytest.raises(ModelLoading) as raised:
        list(client.chat_stream("m", []))
    assert raised.value.retry_after == 2.0


def test_no_server_names_the_way_out() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Problem) as raised:
        client.health()
    assert (raised.value.code, raised.value.status) == ("no_server", 503)
    assert "xinference serve" in str(raised.value.hint)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html>hello</html>", 200, "text/html"),
        Answer("not here", 404, "text/html"),
        Answer({"detail": "Not Found"}, 404),
        Answer({"other": 1}),
    ],
)
def test_another_program_at_the_port_is_told_apart(canned: Canned, client: Client, answer: Answer) -> None:
    canned.answers["GET", "/health"] = answer
    with pytest.raises(Problem) as raised:
        client.health()
    assert raised.value.code == "not_our_server"


@pytest.mark.parametrize("url", ["localhost:9997", "ftp://h", "http://", "", "http://h:port"])
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(Problem) as raised:
        Client(url)
    assert raised.value.code == "bad_endpoint"


def test_loopback_requests_use_no_proxy(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Client(canned.url) as client:
        assert client.health() == {"status": "ok"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://0.0.0.0:1", True),
        ("http://10.0.0.1", False),
        ("https://example.org", False),
    ],
)
def test_loopback_is_known_by_its_host(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_events_are_followed_to_the_last(canned: Canned, client: Client) -> None:
    canned.answers["GET", "/v1/models/m/events"] = events({"event_type": "INFO"}, {"event_type": "READY"})
    assert [e["event_type"] for e in client.follow_events("m")] == ["INFO", "READY"]
    assert canned.asked[0].query == "follow=true"


def test_events_that_break_off_are_a_problem(canned: Canned, client: Client) -> None:
    canned.answers["GET", "/v1/models/m/events"] = events({"event_type": "INFO"})
    with pytest.raises(Problem) as raised:
        list(client.follow_events("m"))
    assert raised.value.code == "server_gone"


def test_a_streamed_chat_ends_at_done(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/chat/completions"] = events({"a": 1}, {"a": 2}, "[DONE]")
    assert list(client.chat_stream("m", [{"role": "user", "content": "x"}], max_tokens=3)) == [{"a": 1}, {"a": 2}]
    assert canned.asked[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "max_tokens": 3,
    }


def test_an_error_event_in_a_stream_is_raised(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/completions"] = events({"a": 1}, {"error": {"message": "engine died", "code": "died"}})
    stream = client.generate_stream("m", "x")
    assert next(stream) == {"a": 1}
    with pytest.raises(Problem, match="engine died"):
        next(stream)


def test_a_stream_without_its_end_is_a_problem(canned: Canned, client: Client) -> None:
    canned.answers["POST", "/v1/completions"] = events({"a": 1})
    with pytest.raises(Problem, match="before the answer was complete"):
        list(client.generate_stream("m", "x"))


def test_log_text_keeps_characters_that_are_cut_by_the_network(canned: Canned, client: Client) -> None:
    raw = "größe\n".encode()
    canned.answers["GET", "/v1/models/m/logs"] = Answer(iter([raw[:3], raw[3:]]), content_type="text/plain")
    assert "".join(client.logs("m", lines=5)) == "größe\n"
    assert canned.asked[0].query == "lines=5&follow=false"


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_events_are_split_at_newlines_only(step: int) -> None:
    text = "a\u2028b\x85c"
    stream = f": ping\r\n\r\nevent: x\ndata:{json.dumps(text, ensure_ascii=False)}\r\n\r\ndata: 1\ndata: 2\n\n".encode()
    reader = ServerSentEvents()
    got = [data for at in range(0, len(stream), step) for data in reader.feed(stream[at : at + step])]
    assert [got[0], got[1]] == [json.dumps(text, ensure_ascii=False), "1\n2"]
    assert len(got) == 2


def test_the_other_requests_go_where_the_interface_says(canned: Canned, client: Client) -> None:
    canned.answers.update(
        {
            ("GET", "/status"): Answer({"version": "1"}),
            ("GET", "/v1/models"): Answer({"object": "list", "data": [{"id": "m"}]}),
            ("GET", "/v1/models/instances"): Answer([{"model_uid": "m"}]),
            ("GET", "/v1/engines/llama"): Answer({"llama.cpp": []}),
            ("GET", "/v1/model_registrations/LLM"): Answer([{"model_name": "llama"}]),
            ("GET", "/v1/model_registrations/LLM/llama"): Answer({"model_name": "llama"}),
            ("DELETE", "/v1/clusters"): Answer({"result": True}),
            ("POST", "/v1/chat/completions"): Answer({"choices": []}),
            ("POST", "/v1/completions"): Answer({"choices": []}),
        }
    )
    assert client.status() == {"version": "1"}
    assert client.list_models() == [{"id": "m"}]
    assert client.list_instances() == [{"model_uid": "m"}]
    assert client.engines("llama") == {"llama.cpp": []}
    assert client.registrations() == [{"model_name": "llama"}]
    assert client.registration("LLM", "llama") == {"model_name": "llama"}
    assert client.chat("m", []) == client.generate("m", "x") == {"choices": []}
    client.stop_cluster()
