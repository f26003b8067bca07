"""What is killed comes back, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import httpx2
import psutil
import pytest

from tests.support.home import UID, Home, send_signal, sse_events
from tests.support.polling import until

LONG = {"model": UID, "messages": [{"role": "user", "content": "Tell me a long story."}], "stream": True}


def open_stream(home: Home, kill: Callable[[], None], max_tokens: int = 3000) -> str:
    """Begin a long streamed chat, call `kill` after its first bytes, and give all that was received."""
    received = ""
    with httpx2.stream(
        "POST",
        f"{home.url}/v1/chat/completions",
        json=LONG | {"max_tokens": max_tokens, "ignore_eos": True},
        timeout=60,
    ) as response:
        for text in response.iter_text():
            if not received:
                kill()
            received += text
    return received


def test_a_killed_engine_tells_its_stream_and_is_back_by_itself(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()
    assert home.launch(model_name=UID).status_code == 200
    first = home.engine_pid()

    events = sse_events(open_stream(home, lambda: os.kill(first, signal.SIGKILL)))
    errors = [event for event in events if "error" in event]
    assert len(errors) == 1 and events[-1] is errors[0]
    assert errors[0]["error"]["code"] == "engine_died"

    answer = home.chat()
    assert answer.status_code == 200, answer.text
    assert home.engine_pid() != first


def test_a_model_that_keeps_dying_is_given_up_with_its_last_words(make_home: Callable[..., Home]) -> None:
    home = make_home(XINFERENCE_RESTART_BACKOFF_SECONDS="0.05")
    home.serve()
    home.launch(model_name=UID)
    killed: set[int] = set()

    def kill_until_failed() -> bool:
        instance = home.instance()
        for replica in instance["replicas"]:
            if replica["status"] == "READY" and replica["engine_pid"] not in killed:
                killed.add(replica["engine_pid"])
                send_signal(replica["engine_pid"], signal.SIGKILL)
        return bool(instance["status"] == "ERROR")

    until("the model is given up", kill_until_failed)
    problem = home.instance()["problem"]
    assert len(killed) == 4
    assert problem["code"] == "engine_keeps_dying" and "SIGKILL" in problem["cause"] and problem["log_tail"]
    assert home.chat().status_code == 503
    assert home.launch(model_name=UID, model_uid=UID).status_code == 200
    assert home.chat().status_code == 200


def test_a_killed_server_is_succeeded_by_one_that_does_not_load_again(make_home: Callable[..., Home]) -> None:
    home = make_home()
    server = home.serve()
    home.launch(model_name=UID)
    engine = home.engine_pid()
    server.kill()
    server.wait()

    home.serve()
    answer = home.chat()
    assert answer.status_code == 200, answer.text
    assert home.engine_pid() == engine
    assert home.instance()["context_length"] == 4096


def test_a_terminated_server_leaves_the_engine_to_its_successor(make_home: Callable[..., Home]) -> None:
    home = make_home()
    server = home.serve()
    home.launch(model_name=UID)
    engine = home.engine_pid()
    server.terminate()
    assert server.wait(20) == 0
    home.serve()
    assert home.chat().status_code == 200
    assert home.engine_pid() == engine


def test_without_a_successor_nothing_is_left_after_the_grace_period(make_home: Callable[..., Home]) -> None:
    home = make_home(XINFERENCE_GRACE_SECONDS="1")
    server = home.serve()
    home.launch(model_name=UID)
    assert len(home.processes()) >= 3
    server.kill()
    server.wait()
    until("every process is gone", home.nothing_left, 20)


def test_stop_ends_everything_and_the_model_comes_back_with_the_next_server(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()
    home.launch(model_name=UID)
    stopped = home.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    until("every process is gone", home.nothing_left, 20)
    home.serve()
    until("the model is back", lambda: home.chat().status_code == 200)


def test_a_model_terminated_while_the_server_dies_does_not_come_back(make_home: Callable[..., Home]) -> None:
    home = make_home()
    server = home.serve()
    home.launch(model_name=UID)
    assert httpx2.delete(f"{home.url}/v1/models/{UID}", timeout=30).status_code == 200
    server.kill()
    server.wait()
    home.serve()
    assert httpx2.get(f"{home.url}/v1/models/instances", timeout=10).json() == []


def test_two_replicas_answer_and_one_may_die_unnoticed(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()
    assert home.launch(model_name=UID, replica=2, n_ctx=512).status_code == 200
    until("both answer", lambda: [r["status"] for r in home.instance()["replicas"]] == ["READY", "READY"])
    pids = [replica["engine_pid"] for replica in home.instance()["replicas"]]
    assert len(set(pids)) == 2
    os.kill(pids[0], signal.SIGKILL)
    answers = [home.chat() for _ in range(4)]
    assert [each.status_code for each in answers] == [200] * 4, [each.text for each in answers]
    until("both are back", lambda: [r["status"] for r in home.instance()["replicas"]] == ["READY", "READY"])


def test_a_client_that_leaves_stops_the_engines_work(running: Home) -> None:
    engine = psutil.Process(running.engine_pid())

    def idle() -> bool:
        before = sum(engine.cpu_times()[:2])
        engine.cpu_percent(interval=0.4)
        return bool(sum(engine.cpu_times()[:2]) - before < 0.1)

    body = LONG | {"max_tokens": 6000, "ignore_eos": True}
    with httpx2.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_text())
    until("the engine is idle after a stream", idle, 30)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{running.url}/v1/chat/completions", json=body | {"stream": False}, timeout=2)
    until("the engine is idle after a whole answer", idle, 30)


def test_a_loading_model_is_a_503_with_its_stage_and_can_be_cancelled(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()
    httpx2.post(f"{home.url}/v1/models", params={"wait_ready": False}, json={"model_name": UID}, timeout=30)
    answer = home.chat()
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "model_loading"
    assert int(answer.headers["retry-after"]) > 0
    assert httpx2.delete(f"{home.url}/v1/models/{UID}", timeout=30).status_code == 200
    assert json.loads(httpx2.get(f"{home.url}/v1/models/instances").text) == []
    until("only the server is left", lambda: len(home.processes()) == 1, 20)
