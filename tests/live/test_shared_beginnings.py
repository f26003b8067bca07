"""Answers with shared beginnings on a real llama.cpp: token for token those of the same engine without sharing.

The size of a batch changes the last bits of llama.cpp's results, so the reference computes in the same batches: each
beginning once by the request that was first, then the rest. That is what one slot does without any sharing.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.support.home import Home
from tests.support.polling import until
from xinference.files.state_folders import memory_root

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
QUESTIONS = [each["question"] for each in json.loads((HF / "qa.json").read_text(encoding="utf-8"))]
WORDS = ("river", "stone", "lamp", "north", "seven", "quiet", "glass", "orbit", "paper", "winter", "signal", "amber")
GROUPS = 5
SHARED = {"XINFERENCE_SHARED_BEGINNINGS": "true"}
#: `make shared-beginnings` asks 300.
PROMPTS = int(os.environ.get("SHAREDPROMPTS", "20"))

#: One thread: on a busy machine, two threads of a tiny model wait for each other most of the time.
LAUNCH = {"model_uid": "m", "n_threads": 1, "n_threads_batch": 1}

pytestmark = pytest.mark.timeout(300 + 10 * PROMPTS)


def system(group: int) -> str:
    """A text of some 1,400 tokens, longer than what is computed again."""
    return " ".join(random.Random(group).choices(QUESTIONS, k=140))


def body(group: int, question: str, tokens: int = 12) -> dict[str, Any]:
    messages = [{"role": "system", "content": system(group)}, {"role": "user", "content": question}]
    return {"model": "m", "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def ask(home: Home, asked: dict[str, Any]) -> Any:
    answer = httpx2.post(f"{home.url}/v1/chat/completions", json=asked, timeout=240)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(answer: Any) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def leave(home: Home, asked: dict[str, Any]) -> None:
    """A client that leaves after the first piece of a long answer."""
    stream = {**asked, "stream": True, "max_tokens": 500}
    with httpx2.stream("POST", f"{home.url}/v1/chat/completions", json=stream, timeout=120) as answer:
        next(answer.iter_bytes())


def kill(home: Home) -> None:
    pid = home.engine_pid("m")
    os.kill(pid, signal.SIGKILL)
    until("another engine runs", lambda: home.instance("m")["replicas"][0].get("engine_pid") not in (pid, None))


def metric(home: Home, name: str) -> float:
    text = httpx2.get(f"{home.url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith(f"xinference_prompt_states_{name}{{")]
    return float(lines[0].rsplit(" ", 1)[1])


def test_answers_are_those_without_sharing(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    """One slot: each change of the group evicts a state and restores another one."""
    home, apart = make_home(**SHARED), make_home()
    for each in (home, apart):
        each.serve()
        assert each.launch(**tiny | LAUNCH | {"n_ctx": 2048}).status_code == 200
    random_ = random.Random(1)
    for group in range(GROUPS):
        ask(home, body(group, "Who?", 1))
        ask(home, body(group, "What?", 1))
    wrong = []
    for n in range(PROMPTS):
        group, question = random_.randrange(GROUPS), random_.choice(QUESTIONS)
        if n % 5 == 3:
            leave(home, body(random_.randrange(GROUPS), "Why?"))
        if n % 10 == 7:
            kill(home)
        found = ask(home, body(group, question))
        ask(apart, body(group, "Who?", 1))
        reference = ask(apart, body(group, question))
        if text_of(found) != text_of(reference):
            wrong.append((group, question, text_of(found), text_of(reference)))
    assert not wrong
    assert metric(home, "restored_total") >= PROMPTS / 4


def test_a_burst_computes_a_beginning_once(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    home = make_home(**SHARED)
    home.serve()
    assert home.launch(**tiny | LAUNCH | {"n_ctx": 2048, "n_parallel": 4}).status_code == 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda question: ask(home, body(0, question)), QUESTIONS[:4]))
    assert all(each["usage"]["prompt_tokens_details"]["cached_tokens"] > 800 for each in answers)
    assert metric(home, "saved_total") >= 1
    assert not list((home.path / "states").glob("*/*.part"))


def test_agents_compute_their_system_prompt_once(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    """Four at once in each of three turns; without sharing, each computes the system prompt of 1,400 tokens."""
    computed = []
    for shared in ("true", "false"):
        home = make_home(XINFERENCE_SHARED_BEGINNINGS=shared)
        home.serve()
        assert home.launch(**tiny | LAUNCH | {"n_ctx": 2048, "n_parallel": 4}).status_code == 200
        histories = [[{"role": "system", "content": system(0)}] for _ in range(4)]
        for turn in range(3):
            for agent, history in enumerate(histories):
                history.append({"role": "user", "content": QUESTIONS[4 * turn + agent]})
            fields = [{"model": "m", "messages": each, "max_tokens": 2, "temperature": 0} for each in histories]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda asked, home=home: ask(home, asked), fields))
            for history in histories:
                history.append({"role": "assistant", "content": "Yes."})
        (engine,) = httpx2.get(f"{home.url}/v1/models/m/engine", timeout=60).json()
        computed.append(engine["prefix_queries"] - engine["prefix_hits"])
        assert home.cli("terminate", "m").returncode == 0
    assert computed[0] < 0.45 * computed[1]


def test_the_folder_in_memory_is_deleted_after_kills(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    """The engine deletes it if its server was killed; the next server, also of another home, if both were."""
    home, other = make_home(**SHARED, XINFERENCE_GRACE_SECONDS="1"), make_home(**SHARED)
    server = home.serve()
    assert home.launch(**tiny | LAUNCH | {"n_ctx": 2048}).status_code == 200
    for question in QUESTIONS[:3]:
        ask(home, body(0, question, 1))
    root = memory_root(home.path)
    assert list(root.glob("*/*.state"))
    server.kill()
    server.wait(60)
    until("the engine has deleted the folder", lambda: not root.exists(), seconds=120)

    server = home.serve()
    until("the model is ready again", lambda: home.instance("m")["status"] == "READY", seconds=120)
    ask(home, body(0, "Where?", 1))
    assert root.exists()
    pid = home.engine_pid("m")
    server.kill()
    os.kill(pid, signal.SIGKILL)
    server.wait(60)
    until("the engine has ended", lambda: not psutil.pid_exists(pid), seconds=120)
    other.serve()
    assert not root.exists()


def test_an_on_demand_model_and_a_new_server_begin_warm(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    home = make_home(**SHARED)
    server = home.serve()
    assert home.launch(**tiny | LAUNCH | {"n_ctx": 2048, "n_parallel": 2}).status_code == 200
    for question in QUESTIONS[:3]:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: ask(home, body(0, each, 4)), [question, question + "?"]))
    until("a state is on the disk", lambda: metric(home, "disk_bytes") > 0)
    server.send_signal(signal.SIGINT)
    server.wait(60)
    home.serve()
    until("the model is ready again", lambda: home.instance("m")["status"] == "READY")
    answer = ask(home, body(0, "Where?", 4))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 300


@pytest.mark.long
def test_a_hot_beginning_of_a_real_model_is_restored_after_an_unload_and_a_kill(
    make_home: Callable[..., Home], smollm2_file: Path
) -> None:
    """Some 1,900 tokens, which take a second or more to compute; `benchmarks.shared_beginnings --parts 3` times it."""
    home = make_home(**SHARED)
    home.serve()
    version = {"model_name": "smollm2-instruct", "quantization": "Q4_1", "model_path": str(smollm2_file)}
    launched = home.launch(**LAUNCH | version | {"n_ctx": 2560, "n_parallel": 2, "on_demand": True})
    assert launched.status_code == 200, launched.text
    messages = [{"role": "system", "content": " ".join(random.Random(7).choices(WORDS, k=1850))}]

    def cached(question: str) -> int:
        asked = {"model": "m", "messages": [*messages, {"role": "user", "content": question}], "max_tokens": 2}
        return int(ask(home, asked)["usage"]["prompt_tokens_details"]["cached_tokens"])

    for question in QUESTIONS[:4]:
        cached(question)
    until("a state is on the disk", lambda: metric(home, "disk_bytes") > 0)
    assert httpx2.post(f"{home.url}/v1/models/m/unload", timeout=60).status_code == 200
    until("no state is in memory", lambda: not list(memory_root(home.path).glob("*/*.state")), seconds=60)
    assert cached("Who is it after the unload?") > 1800
    kill(home)
    assert cached("Who is it after the kill?") > 1800
