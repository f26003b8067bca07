"""Errors, retries and streams, the same in both clients."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.cli.canned import Answer, Asked, Canned, events, problem
from tests.client.either import Either
from tests.support.cases import in_one_test
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.client import AsyncClient, Client, RESTfulClient
from xinference.client.answers import ModelLoading
from xinference.client.connection import is_local, may_repeat
from xinference.errors import Problem

MODEL = ("GET", "/v1/models/x")


def refused(client: Either, method: str = "describe_model", *args: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        client(method, *(args or ("x",)))
    return raised.value


def test_the_servers_problem_is_raised_as_it_is(canned: Canned, client: Either) -> None:
    canned.answers[MODEL] = problem(404, "model_not_found", "no x", stage="start", hint="try y", log_tail=["a", "b"])
    found = refused(client)
    assert found.to_dict() == {
        "code": "model_not_found",
        "status": 404,
        "cause": "no x",
        "stage": "start",
        "hint": "try y",
        "log_tail": ["a", "b"],
        "suggestions": [],
    }
    assert isinstance(found, RuntimeError) and str(found) == "no x try y"
    assert found.__notes__ == ["Last lines:\n    a\n    b"]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"detail": "no such thing"}, "no such thing"),
        ({"detail": [{"loc": ["body", "replica"], "msg": "not a number"}]}, "body.replica: not a number"),
        ({"error": {"message": "too long", "code": "context"}}, "too long"),
        ({"error": "plain"}, "plain"),
    ],
)
def test_other_error_bodies_are_problems_too(canned: Canned, client: Either, body: Any, cause: str) -> None:
    canned.answers[MODEL] = Answer(body, 400)
    found = refused(client)
    assert (found.cause, found.status) == (cause, 400)


def test_a_plain_server_error_is_told_with_its_text(canned: Canned, client: Either) -> None:
    canned.answers[MODEL] = Answer("Internal Server Error", 500, "text/plain")
    assert "answered 500: Internal Server Error" in refused(client).cause


def test_a_loading_model_says_when_to_ask_again(canned: Canned, client: Either) -> None:
    canned.answers[MODEL] = Answer({"error": {"message": "loading"}}, 503, headers={"retry-after": "2"})
    found = refused(client)
    assert isinstance(found, ModelLoading) and found.retry_after == 2.0


def test_no_server_names_the_way_out(connect: Callable[..., Either]) -> None:
    found = refused(connect(f"http://127.0.0.1:{free_port()}", retries=0))
    assert (found.code, found.status) == ("no_server", 503)
    assert "xinference serve" in str(found.hint)


def test_a_client_looks_for_its_server_at_once(canned: Canned) -> None:
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": False})
    RESTfulClient(canned.url).close()
    assert [asked.path for asked in canned.asked] == ["/v1/cluster/auth"]
    with pytest.raises(RuntimeError, match="No server answers"):
        Client(f"http://127.0.0.1:{free_port()}", retries=0)


def test_a_server_that_knows_of_no_keys_is_talked_to(canned: Canned) -> None:
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"detail": "no such path"}, 404)
    with Client(canned.url) as client:
        assert client.health() == {"status": "ok"}


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html>hello</html>", 200, "text/html"),
        Answer("not here", 404, "text/html"),
        Answer({"detail": "Not Found"}, 404),
        Answer({"other": 1}),
    ],
)
def test_another_program_at_the_port_is_told_apart(canned: Canned, client: Either, answer: Answer) -> None:
    canned.answers["GET", "/health"] = answer
    with pytest.raises(Problem) as raised:
        client("health")
    assert raised.value.code == "not_our_server"


@pytest.mark.parametrize("url", ["h:port", "ftp://h", "http://", "", "http://h:port"])
def test_an_endpoint_that_is_no_url_is_refused(connect: Callable[..., Either], url: str) -> None:
    with pytest.raises(Problem) as raised:
        connect(url)
    assert raised.value.code == "bad_endpoint"


def test_loopback_requests_use_no_proxy(
    canned: Canned, connect: Callable[..., Either], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert connect(canned.url)("health") == {"status": "ok"}


@in_one_test(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.0.0.2", True),
        ("http://a.localhost", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://0.0.0.0:1", True),
        ("http://10.0.0.1", False),
        ("https://example.org", False),
    ],
)
def test_a_local_server_is_known_by_its_host(url: str, expected: bool) -> None:
    assert is_local(url) is expected


@in_one_test(
    ("method", "error", "expected"),
    [
        ("POST", httpx2.ConnectError("refused"), True),
        ("POST", httpx2.ConnectTimeout("slow"), True),
        ("POST", httpx2.ReadError("reset"), False),
        ("POST", httpx2.RemoteProtocolError("cut"), False),
        ("DELETE", httpx2.ReadError("reset"), False),
        ("GET", httpx2.ReadError("reset"), True),
        ("GET", httpx2.RemoteProtocolError("cut"), True),
        ("GET", httpx2.ReadTimeout("slow"), False),
    ],
)
def test_only_what_cannot_be_done_twice_by_it_is_sent_again(
    method: str, error: httpx2.TransportError, expected: bool
) -> None:
    assert may_repeat(method, error) is expected


@pytest.fixture
def hangs_up() -> Iterator[tuple[str, list[bytes]]]:
    """A port where the first connection is closed after its request, and the second one is answered; what came."""
    came: list[bytes] = []
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{"status":"ok"}'
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in (b"", answer):
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                with connection:
                    came.append(connection.recv(65536))
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_question_is_asked_again_when_the_connection_breaks(
    hangs_up: tuple[str, list[bytes]], connect: Callable[..., Either]
) -> None:
    url, came = hangs_up
    assert connect(url)("health") == {"status": "ok"}
    assert len(came) == 2


def test_an_order_is_given_once(hangs_up: tuple[str, list[bytes]], connect: Callable[..., Either]) -> None:
    url, came = hangs_up
    assert refused(connect(url), "launch_model", "llama").code == "server_gone"
    assert len(came) == 1


def test_an_answer_that_does_not_come_is_a_timeout(canned: Canned, connect: Callable[..., Either]) -> None:
    late = threading.Event()

    def wait(asked: Asked) -> Answer:
        late.wait(20)
        return Answer({})

    canned.answers["GET", "/status"] = wait
    client = connect(canned.url, timeout=0.05)
    with pytest.raises(Problem) as raised:
        client("status")
    late.set()
    assert raised.value.code == "server_timeout"


def test_events_are_followed_to_the_last(canned: Canned, client: Either) -> None:
    canned.answers["GET", "/v1/models/m/events"] = events({"event_type": "INFO"}, {"event_type": "READY"})
    assert [e["event_type"] for e in client("follow_events", "m")] == ["INFO", "READY"]


def test_events_that_break_off_are_a_problem(canned: Canned, client: Either) -> None:
    canned.answers["GET", "/v1/models/m/events"] = events({"event_type": "INFO"})
    assert refused(client, "follow_events", "m").code == "server_gone"


def test_a_refused_stream_is_raised_by_the_call(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m/events"] = problem(404, "model_not_found", "no m")
    with Client(canned.url, check=False) as client, pytest.raises(Problem, match="no m"):
        client.follow_events("m")


def test_log_text_keeps_characters_that_are_cut_by_the_network(canned: Canned, client: Either) -> None:
    raw = "größe\n".encode()
    canned.answers["GET", "/v1/models/m/logs"] = Answer(iter([raw[:3], raw[3:]]), content_type="text/plain")
    assert "".join(client("logs", "m")) == "größe\n"


ENDLESS = Answer(itertools.repeat(b"x" * 65536), content_type="text/plain")


def test_an_abandoned_stream_is_closed(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = ENDLESS
    with Client(canned.url, check=False) as client:
        for _ in client.logs("m", follow=True):
            break
        assert canned.left.wait(20)


async def test_an_abandoned_async_stream_is_closed(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = ENDLESS
    async with AsyncClient(canned.url) as client:
        pieces = await client.logs("m", follow=True)
        async for _ in pieces:
            break
        del pieces
        gc.collect()
        assert await asyncio.to_thread(canned.left.wait, 20)


async def test_requests_of_one_async_client_run_side_by_side(canned: Canned) -> None:
    together = threading.Barrier(3)

    def answer(asked: Asked) -> Answer:
        together.wait(20)
        return Answer({"uptime": 1})

    canned.answers["GET", "/status"] = answer
    async with AsyncClient(canned.url) as client:
        assert await asyncio.gather(*(client.status() for _ in range(3))) == [{"uptime": 1}] * 3
    until("three requests are sent", lambda: len(canned.asked) == 3)


@pytest.mark.parametrize(("options", "name"), [({}, "base_url"), ({"url_name": "--endpoint"}, "--endpoint")])
def test_a_hint_names_the_url_as_its_user_gave_it(
    connect: Callable[..., Either], options: dict[str, str], name: str
) -> None:
    found = refused(connect(f"http://127.0.0.1:{free_port()}", retries=0, **options))
    assert str(found.hint).endswith(f"the URL of another one with {name}.")
