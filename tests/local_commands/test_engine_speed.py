"""The comparison of two engines: stand-ins that answer at once, and a time that is over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xinference.local_commands.engine_speed import Engine, TimeUpError, answers, compare

FIGURES = {"prefill", "1 stream", "4 streams", "8 streams", "edits"}


@contextmanager
def engine(status: int = 200, ends: float = float("inf")) -> Iterator[tuple[Engine, list[str]]]:
    """An engine that repeats the first letters of each prompt, with the prompts that it got."""
    prompts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompts.append(asked["prompt"])
            body = json.dumps({"content": asked["prompt"][:5], "tokens_predicted": asked["n_predict"]}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Engine(server.server_address[1], "k", 256, ends), prompts
        finally:
            server.shutdown()


def test_both_get_the_same_prompts_and_each_round_others() -> None:
    with engine() as (first, of_first), engine() as (second, of_second):
        ratios = compare(first, second, 2, float("inf")).medians
    assert ratios.keys() == FIGURES
    assert all(ratio > 0 for ratio in ratios.values())
    assert sorted(of_first) == sorted(of_second)
    assert len(set(of_first)) == len(of_first)
    assert len(of_first) in (1 + 15, 1 + 2 * 15)  # a chance result may be too bad for a second round
    assert all(len(prompt.split()) < 256 // 2 for prompt in of_first)


def test_no_further_round_begins_when_the_share_of_a_comparison_is_over() -> None:
    with engine() as (first, prompts), engine() as (second, _):
        assert compare(first, second, 5, until=0).medians.keys() == FIGURES
    assert len(prompts) == 1 + 15


def test_nothing_is_asked_after_the_end() -> None:
    with engine(ends=0) as (late, prompts):
        with pytest.raises(TimeUpError):
            compare(late, late, 1, 0)
        with pytest.raises(TimeUpError):
            answers(late)
    assert prompts == []


def test_a_refusal_of_an_engine_is_no_answer() -> None:
    with engine(status=500) as (broken, _), pytest.raises(OSError, match="500"):
        answers(broken)
