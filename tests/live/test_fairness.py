"""A real engine with one slot, and a client with more requests than that: another client is answered in its turn."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import pytest

from tests.support.home import Home
from tests.support.polling import until

ASKED = {"model": "m", "prompt": "Once", "max_tokens": 30, "ignore_eos": True, "temperature": 0}


def key_of(home: Home, name: str, **limits: Any) -> dict[str, str]:
    """The headers of a new key's requests."""
    owner = {"authorization": f"Bearer {(home.path / 'owner.key').read_text().strip()}"}
    made = httpx2.post(f"{home.url}/v1/keys", json={"name": name, **limits}, headers=owner, timeout=10)
    assert made.status_code == 200, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


def test_a_key_with_many_requests_does_not_keep_another_one_waiting(
    make_home: Callable[..., Home], tiny: dict[str, Any]
) -> None:
    home = make_home()
    home.serve()
    assert home.launch(**tiny, model_uid="m").status_code == 200
    first, second = (key_of(home, name) for name in ("first", "second"))
    limited = key_of(home, "limited", requests_in_flight=1)

    def ask(headers: dict[str, str]) -> int:
        return httpx2.post(f"{home.url}/v1/completions", json=ASKED, headers=headers, timeout=240).status_code

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(ask, first) for _ in range(32)]
        until("some are answered", lambda: any(each.done() for each in waiting))
        before = sum(each.done() for each in waiting)
        assert ask(second) == 200
        # One after the other, all 32 would be answered first.
        assert sum(each.done() for each in waiting) - before < 16
        assert sorted(pool.map(ask, [limited] * 2)) == [200, 429]
        assert {each.result() for each in waiting} == {200}


def computes(home: Home) -> bool:
    """Whether a request is at the engine."""
    owner = {"authorization": f"Bearer {(home.path / 'owner.key').read_text().strip()}"}
    metrics = httpx2.get(f"{home.url}/metrics", headers=owner, timeout=10).text
    lines = [line for line in metrics.splitlines() if line.startswith("xinference_requests_in_flight{")]
    return any(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)


def test_a_request_with_many_inputs_does_not_keep_another_client_waiting(
    make_home: Callable[..., Home], tiny: dict[str, Any]
) -> None:
    home = make_home()
    home.serve()
    answer = home.launch(**tiny | {"model_uid": "m", "embedding": True, "pooling": "mean", "n_parallel": 2})
    assert answer.status_code == 200, answer.text
    first, second = (key_of(home, name) for name in ("first", "second"))
    # Long ones: a busy machine must see them at the engine.
    texts = [f"{n} {'Once upon a time ' * 8}" for n in range(100)]

    def post(path: str, headers: dict[str, str], **body: Any) -> Any:
        answer = httpx2.post(f"{home.url}{path}", json={"model": "m", **body}, headers=headers, timeout=240)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def embed(given: list[str]) -> Any:
        return post("/v1/embeddings", first, input=given)

    def complete(given: list[str]) -> Any:
        return post("/v1/completions", first, prompt=given, max_tokens=4, ignore_eos=True, temperature=0, echo=True)

    def has_begun(request: Future[Any]) -> bool:
        return computes(home) or request.done()

    answers = {}
    with ThreadPoolExecutor(1) as pool:
        for ask in (embed, complete):
            many = pool.submit(ask, texts)
            until("the engine computes it", partial(has_begun, many))
            post("/v1/completions", second, **{name: value for name, value in ASKED.items() if name != "model"})
            assert not many.done(), "100 inputs took no longer than one answer: the test shows nothing"
            answers[ask] = many.result()
    alone = embed(texts[96:98])
    vectors = {each["index"]: each["embedding"] for each in answers[embed]["data"]}
    assert sorted(vectors) == list(range(100))
    for n, each in enumerate(alone["data"]):
        assert vectors[96 + n] == pytest.approx(each["embedding"], abs=1e-4)
    choices = answers[complete]["choices"]
    assert [each["index"] for each in choices] == list(range(100))
    assert all(each["text"].startswith(text) for each, text in zip(choices, texts, strict=True))
    assert answers[complete]["usage"]["completion_tokens"] == 400
