"""Work with a deadline in the Transformers server, by a program in the place of the one that needs its libraries."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from xinference.engines.transformers.server import limited
from xinference.engines.transformers.server.limited import LimitError, Workers, WorkFailedError

PROGRAM = """
import json, os, sys, time
while len(length := sys.stdin.buffer.read(8)) == 8:
    request = json.loads(sys.stdin.buffer.read(int.from_bytes(length, "big")))
    if request["work"] == "loop":
        while True:
            pass
    if request["work"] == "die":
        os.kill(os.getpid(), 11)
    known = {"echo": {"result": request.get("value")}, "pid": {"result": os.getpid()}}
    known |= {"fail": {"error": "wrong"}, "much": {"limit": "more than 4 MiB of text"}}
    data = json.dumps(known[request["work"]]).encode()
    sys.stdout.buffer.write(len(data).to_bytes(8, "big") + data)
    sys.stdout.buffer.flush()
"""


pytestmark = pytest.mark.process


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    program = tmp_path / "worker.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(limited, "PROGRAM", program)
    monkeypatch.setattr(limited, "STARTING_SECONDS", 0.0)
    return Workers(2, seconds=2.0)


def test_a_result_comes_back_whatever_its_size_from_a_process_that_is_used_again(workers: Workers) -> None:
    text = "é" * 1_000_000
    assert workers.do("echo", value=text) == text
    assert len({workers.do("pid") for _ in range(5)}) == 1


def test_work_beyond_its_deadline_is_ended_and_the_next_gets_a_new_process(workers: Workers) -> None:
    before = workers.do("pid")
    with pytest.raises(LimitError, match="more than 2 seconds"):
        workers.do("loop")
    assert workers.do("pid") != before


def test_a_process_that_ends_is_replaced(workers: Workers) -> None:
    before = workers.do("pid")
    with pytest.raises(LimitError):
        workers.do("die")
    assert workers.do("pid") != before


def test_limits_and_faults_are_told_apart(workers: Workers) -> None:
    with pytest.raises(LimitError, match="4 MiB"):
        workers.do("much")
    with pytest.raises(WorkFailedError, match="wrong"):
        workers.do("fail")


def test_others_are_served_while_one_runs_into_its_deadline(workers: Workers) -> None:
    ended = threading.Event()

    def loop() -> None:
        with pytest.raises(LimitError):
            workers.do("loop")
        ended.set()

    thread = threading.Thread(target=loop)
    thread.start()
    served = 0
    while not ended.is_set():
        assert workers.do("echo", value=1) == 1
        served += 1
    thread.join()
    assert served
