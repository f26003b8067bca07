"""A server of one or two gateway processes, and connections whose clients never complete a request."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import httpx2
import pytest

from tests.support.home import Home
from tests.support.polling import until

POST = b"HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
SENT = (
    b"",
    b"\r\n",
    b"GET /health HTTP/1.1\r\nX: ",
    b"POST /v1/chat/completions " + POST,
    b"POST /v1/keys " + POST,
)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection; an answer before that is read."""
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("processes", [1, 2])
def test_connections_without_a_whole_request_are_closed_and_others_are_answered(
    make_home: Callable[..., Home], processes: int
) -> None:
    limits = {"HEAD_SECONDS": "2", "BODY_SECONDS": "2", "GATEWAY_WORKERS": str(processes)}
    home = make_home(**{f"XINFERENCE_{name}": value for name, value in limits.items()})
    home.serve()
    with ExitStack() as stack:
        connections = []
        for number in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", home.port), 10))
            connection.sendall(SENT[number % len(SENT)])
            connection.setblocking(False)
            connections.append(connection)
        assert httpx2.get(f"{home.url}/v1/models", timeout=10).status_code == 200
        until("all of them are closed", lambda: all(map(is_closed, connections)))
    assert httpx2.get(f"{home.url}/v1/models", timeout=10).status_code == 200
