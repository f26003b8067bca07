"""The watchers of a hostile run see what they are there for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.record import Recorded
from tests.hostile.canaries import Canaries, canaries
from tests.hostile.judge import Judge
from tests.support.cases import in_one_test
from tests.support.polling import until

TRAPS = Canaries(port=45_679, file=Path("/nowhere/canary-file.png"))
ADDRESS = f"http://{TRAPS.host}/a.png"


def fault(path: str = "/v1/chat/completions", **body: Any) -> str | None:
    request = Recorded(path, {"authorization": "Bearer key"}, json.dumps({"model": "m", **body}).encode())
    return Judge("vLLM", TRAPS).fault(request)


def test_a_fetch_and_a_read_are_seen(tmp_path: Path) -> None:
    with canaries(tmp_path) as traps:
        assert (traps.fetches, traps.reads) == ([], 0)
        with socket.create_connection(("127.0.0.1", traps.port)) as connection:
            connection.sendall(b"GET /a.png HTTP/1.1\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        until("the fetch is on record", lambda: traps.fetches == [b"GET /a.png HTTP/1.1\r\n\r\n"], 10)
        traps.file.read_bytes()
        assert traps.reads > 0 and traps.reads == 0


@in_one_test(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ADDRESS}}]}]},
        {"messages": [{"role": "user", "content": "a", "audio": [{"data": str(TRAPS.file)}]}]},
        {"cache_salt": ADDRESS},
        {"guided_json": json.dumps({"$ref": ADDRESS})},
        {"an_unknown_field": 1},
        {"mm_processor_kwargs": {}},
    ],
)
def test_what_must_not_arrive_is_a_fault(body: dict[str, Any]) -> None:
    assert fault(**body) is not None


def test_another_path_headers_of_clients_and_what_is_no_object_are_faults() -> None:
    assert fault("/v1/load_lora_adapter") is not None
    judge = Judge("SGLang", TRAPS)
    for headers, body in (({}, b"{}"), ({"authorization": "a", "cookie": "c"}, b"{}"), ({"authorization": "a"}, b"[]")):
        assert judge.fault(Recorded("/v1/completions", headers, body)) is not None


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a"}], "top_k": 1, "structured_outputs": {"json": {"$id": ADDRESS}}},
        {"messages": [], "metadata": {"url": ADDRESS}},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}
            ]
        },
    ],
)
def test_what_may_arrive_is_none(body: dict[str, Any]) -> None:
    assert fault(**body) is None
