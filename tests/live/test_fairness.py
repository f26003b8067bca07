"""A real engine with one slot, and a client with more requests than that: another client is answered in its turn."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from tests.support.home import Home
from tests.support.polling import until

ASKED = {"model": "m", "prompt": "Once", "max_tokens": 10, "ignore_eos": True, "temperature": 0}


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
        waiting = [pool.submit(ask, first) for _ in range(24)]
        until("some are answered", lambda: any(each.done() for each in waiting))
        before = sum(each.done() for each in waiting)
        assert ask(second) == 200
        assert sum(each.done() for each in waiting) - before < 8
        assert sorted(pool.map(ask, [limited] * 2)) == [200, 429]
        assert {each.result() for each in waiting} == {200}
