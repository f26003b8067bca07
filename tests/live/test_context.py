"""The promised context can be used whole, by every slot at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from tests.support.home import UID, Home

PROMISED = 300
#: For one answer: on a busy machine, 4096 tokens took 13 minutes.
SECONDS = 1500

pytestmark = pytest.mark.timeout(SECONDS + 300)


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    home = make_home()
    home.serve()
    assert home.launch(model_name=UID, n_ctx=PROMISED, n_parallel=4).status_code == 200
    return home


def complete(home: Home, tokens: int, first: int = 100) -> httpx2.Response:
    """A prompt of exactly so many token ids; `first` keeps prompts apart, so that no cache is shared."""
    body = {"model": UID, "prompt": [first] * tokens, "max_tokens": 4}
    return httpx2.post(f"{home.url}/v1/completions", json=body, timeout=SECONDS)


def test_every_slot_answers_a_prompt_of_the_whole_context_at_the_same_time(home: Home) -> None:
    assert home.instance()["context_length"] == PROMISED
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: complete(home, PROMISED, 100 + i), range(4)))
    assert [a.status_code for a in answers] == [200] * 4, [a.text for a in answers]
    assert {a.json()["usage"]["prompt_tokens"] for a in answers} == {PROMISED}


def test_one_token_more_is_a_400_that_names_both_numbers(home: Home) -> None:
    answer = complete(home, PROMISED + 1)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert str(PROMISED) in error["message"] and str(PROMISED + 1) in error["message"]


@pytest.mark.long
def test_the_default_context_is_answered_whole_in_less_than_350_mib(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()
    assert home.launch(model_name=UID).status_code == 200
    plan = home.instance()
    answer = complete(home, plan["context_length"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == plan["context_length"] == 4096
    assert psutil.Process(home.engine_pid()).memory_info().rss < 350 * 2**20
