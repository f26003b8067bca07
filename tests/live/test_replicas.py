"""Replicas are added and removed while a model answers, and the next server knows how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import psutil

from tests.api.schema_check import undescribed
from tests.support.home import UID, Home
from tests.support.polling import until
from xinference.api import schemas


def replicas(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx2.get(f"{home.url}/v1/models/{UID}/replicas", timeout=10).json()
    return found


def test_replicas_come_and_go_and_the_next_server_keeps_their_number(make_home: Callable[..., Home]) -> None:
    home = make_home()
    server = home.serve()
    assert home.launch(model_name=UID, n_ctx=512, n_parallel=1).status_code == 200
    url = f"{home.url}/v1/models/{UID}/replicas"

    added = httpx2.post(url, json={"replica": 2}, timeout=60)
    assert added.status_code == 200, added.text
    assert added.json()["replica"] == 2
    assert [r["replica_model_uid"] for r in added.json()["replicas"]] == [f"{UID}-rep1", f"{UID}-rep2"]
    assert [(r["replica_id"], r["status"]) for r in replicas(home)] == [(0, "READY"), (1, "READY"), (2, "READY")]
    assert home.instance()["replica"] == 3
    assert undescribed(schemas.Instance, home.instance()) == set()
    assert undescribed(list[schemas.ReplicaAnswer], replicas(home)) == set()
    assert all(home.chat().status_code == 200 for _ in range(4))

    gone = home.engine_pid()
    assert httpx2.delete(f"{url}/0", timeout=30).json() == {"remaining_replicas": 2}
    until("its engine has ended", lambda: gone not in [process.pid for process in home.processes()], 10)
    assert [r["replica_id"] for r in replicas(home)] == [1, 2]
    kept = {r["replica_uid"] for r in replicas(home)}
    assert home.chat().status_code == 200

    server.kill()
    server.wait()
    home.serve()
    assert {r["replica_uid"] for r in replicas(home)} == kept
    assert home.cli("stop").returncode == 0
    home.serve()
    until("both are back", lambda: [r["status"] for r in replicas(home)] == ["READY", "READY"])
    assert [r["replica_id"] for r in replicas(home)] == [0, 1]

    assert httpx2.delete(f"{url}/7", timeout=30).json()["problem"]["code"] == "replica_not_found"
    assert httpx2.delete(f"{url}/0", timeout=30).status_code == 200
    last = httpx2.delete(f"{url}/1", timeout=30)
    assert (last.status_code, last.json()["problem"]["code"]) == (409, "last_replica")
    assert home.chat().status_code == 200


def test_a_replica_that_would_differ_is_refused(running: Home) -> None:
    url = f"{running.url}/v1/models/{UID}/replicas"
    for body, code in (
        ({"model_engine": "vLLM"}, "invalid_request"),
        ({"replica_config": {"devices": [{"gpu_idx": [0]}]}}, "no_such_device"),
        ({"replica": 0}, "invalid_request"),
    ):
        answer = httpx2.post(url, json=body, timeout=30)
        assert (answer.status_code, answer.json()["problem"]["code"]) == (400, code), answer.text
    assert httpx2.post(f"{running.url}/v1/models/nope/replicas", timeout=30).status_code == 404
    assert len(replicas(running)) == 1


def test_streams_of_a_replica_that_is_removed_end_whole(make_home: Callable[..., Home]) -> None:
    home = make_home(XINFERENCE_DRAIN_SECONDS="300")
    home.serve()
    assert home.launch(model_name=UID, n_ctx=512, n_parallel=1, replica=2).status_code == 200
    gone = home.engine_pid()
    with ThreadPoolExecutor(3) as pool, ExitStack() as streams:
        # The one with the least in flight gets a prompt that nobody knows: one of these is at the replica that goes.
        lines = [streams.enter_context(stream(home, about)) for about in ("the sea", "a forest")]
        begun = [next(each) for each in lines]
        removing = pool.submit(httpx2.delete, f"{home.url}/v1/models/{UID}/replicas/0", timeout=300)
        texts = [first + "".join(rest) for first, rest in zip(begun, pool.map("".join, lines), strict=True)]
        assert removing.result().json() == {"remaining_replicas": 1}
    assert [text.count('"finish_reason":"length"') for text in texts] == [1, 1]
    assert all(text.endswith("data: [DONE]") for text in texts)
    assert not psutil.pid_exists(gone)
    assert home.chat().status_code == 200


@contextmanager
def stream(home: Home, about: str) -> Iterator[Iterator[str]]:
    """The lines of a stream of 100 tokens."""
    body = {"model": UID, "messages": [{"role": "user", "content": f"{about}: a story"}], "max_tokens": 100}
    url = f"{home.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body | {"stream": True, "ignore_eos": True}, timeout=120) as answer:
        yield (line for line in answer.iter_lines() if line)
