"""Engines of llama.cpp beside other programs: threads that wait for each other leave the processors to them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from tests.support.home import UID, Home

BODY = {"prompt": "One, two,", "max_tokens": 60, "ignore_eos": True, "temperature": 0}


@pytest.mark.skipif(psutil.cpu_count(logical=False) == 1, reason="an engine with one thread waits for no other")
def test_two_models_that_answer_at_once_take_little_longer_than_in_turn(make_home: Callable[..., Home]) -> None:
    """By default, libgomp lets the threads of one engine spin on the cores that the other needs."""
    home = make_home()
    home.serve()
    threads = psutil.cpu_count(logical=False)
    for uid in ("one", "other"):
        answer = home.launch(
            model_name=UID, quantization="Q4_1", model_uid=uid, n_ctx=512, n_parallel=1, n_threads=threads
        )
        assert answer.status_code == 200, answer.text

    def seconds(uid: str) -> float:
        began = time.perf_counter()
        assert httpx2.post(f"{home.url}/v1/completions", json=BODY | {"model": uid}, timeout=120).status_code == 200
        return time.perf_counter() - began

    def in_turn() -> float:
        return seconds("one") + seconds("other")

    def at_once() -> float:
        with ThreadPoolExecutor(2) as pool:
            return max(pool.map(seconds, ("one", "other")))

    in_turn()  # the first requests also prepare buffers
    ratios = [at_once() / in_turn() for _ in range(5)]
    assert statistics.median(ratios) < 3, ratios
