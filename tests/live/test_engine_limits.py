"""llama.cpp that hangs or grows is killed and comes back; llama.cpp that is slow is left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from tests.support.home import UID, Home
from tests.support.polling import until
from xinference.process.memory import private_bytes
from xinference.units import GIB

SHORT = {"XINFERENCE_PROBE_SECONDS": "0.5", "XINFERENCE_HUNG_SECONDS": "3"}
#: Expands to 2^24 stacks in the only loop of llama.cpp; the gateway refuses it, so a test gives it to the engine.
AMBIGUOUS = "\n".join(["root ::= r0 r0", *(f"r{n} ::= r{n + 1} r{n + 1} | r{n + 1}" for n in range(24)), 'r24 ::= "a"'])
CHAT = {"model": UID, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
OTHER = {"model": UID, "messages": [{"role": "user", "content": "Say goodbye."}], "max_tokens": 8}


def launched(make_home: Callable[..., Home], **env: str) -> Home:
    home = make_home(**SHORT, **env)
    home.serve()
    assert home.launch(model_name=UID, quantization="Q4_1", n_parallel=4).status_code == 200
    return home


def code(answer: httpx2.Response) -> str:
    told: str = answer.json()["error"]["code"]
    return told


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_engine_that_a_grammar_occupies_is_killed_and_back(make_home: Callable[..., Home], workers: str) -> None:
    home = launched(make_home, XINFERENCE_GATEWAY_WORKERS=workers)
    first = home.engine_pid()
    key = psutil.Process(first).environ()["XINFERENCE_ENGINE_KEY"]
    address = home.instance()["replicas"][0]["address"]
    headers = {"Authorization": f"Bearer {key}"}
    with pytest.raises(httpx2.TimeoutException):  # this client leaves, as an attacker does
        body = {"prompt": "", "grammar": AMBIGUOUS}
        httpx2.post(f"{address}/v1/completions", json=body, headers=headers, timeout=3)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda body: home.chat(**body), (CHAT, OTHER)))
    assert [(answer.status_code, code(answer)) for answer in answers] == [(502, "engine_hung")] * 2
    until("the engine is started again", lambda: home.engine_pid() not in (None, first))
    # Two requests were at the engine, so neither is refused.
    assert home.chat(**CHAT).status_code == 200 and home.chat(**OTHER).status_code == 200
    assert not psutil.pid_exists(first)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_alone_at_an_engine_that_hangs_is_refused_by_every_process(
    make_home: Callable[..., Home], workers: str
) -> None:
    home = launched(make_home, XINFERENCE_GATEWAY_WORKERS=workers)
    os.kill(home.engine_pid(), signal.SIGSTOP)
    assert code(home.chat(**CHAT)) == "engine_hung"
    assert home.chat(**OTHER).status_code == 200
    for _ in range(8):  # each on a connection of its own
        assert code(home.chat(**CHAT)) == "request_crashes_engine"


def test_an_engine_that_computes_a_long_prompt_or_is_not_read_is_left_alone(make_home: Callable[..., Home]) -> None:
    home = launched(make_home)
    first = home.engine_pid()
    prompt = " ".join(f"word{n}" for n in range(400))
    unread = CHAT | {"stream": True, "max_tokens": 2000, "ignore_eos": True}
    with httpx2.stream("POST", f"{home.url}/v1/chat/completions", json=unread, timeout=300):
        body = {"model": UID, "prompt": prompt, "max_tokens": 20, "ignore_eos": True}
        assert httpx2.post(f"{home.url}/v1/completions", json=body, timeout=300).status_code == 200
    assert home.engine_pid() == first


def test_a_server_that_was_suspended_finds_its_engine_well(make_home: Callable[..., Home]) -> None:
    home = make_home(**SHORT)
    server = home.serve()
    assert home.launch(model_name=UID, quantization="Q4_1").status_code == 200
    first = home.engine_pid()
    engine, keeper = psutil.Process(first), psutil.Process(first).parent()
    assert keeper is not None
    idle = engine.cpu_times().user
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(home.chat, max_tokens=40, ignore_eos=True)
        until("it computes", lambda: engine.cpu_times().user > idle + 0.2)
        for process in (server, keeper, engine):
            os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(psutil.TimeoutExpired):
            engine.wait(6)  # twice the time for an answer
        for process in (engine, keeper, server):
            os.kill(process.pid, signal.SIGCONT)
        assert asking.result().status_code == 200
    assert home.engine_pid() == first


def test_an_engine_in_ordinary_use_stays_far_below_its_ceiling(running: Home) -> None:
    for number in range(4):
        assert running.chat(messages=[{"role": "user", "content": f"{number} " + "word " * 100}]).status_code == 200
    assert private_bytes([running.engine_pid()]) < 2 * GIB
