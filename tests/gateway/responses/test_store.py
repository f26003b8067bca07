from __future__ import annotations

from typing import Any

import pytest

from xinference.gateway.responses.store import KEPT_SECONDS, ResponseStore
from xinference.protocol.errors import Refusal


def response(name: str, text: str = "a") -> dict[str, Any]:
    return {"id": name, "output": [{"type": "message", "role": "assistant", "content": text}]}


def test_a_response_is_kept_for_its_key_with_what_led_to_it() -> None:
    store = ResponseStore()
    store.keep("k", response("r"), [{"role": "user", "content": "hi"}])
    assert b'"id":"r"' in store.response("k", "r")
    assert [item["content"] for item in store.items("k", "r")] == ["hi", "a"]
    for owner in ("other", None):
        with pytest.raises(Refusal) as caught:
            store.response(owner, "r")
        assert caught.value.status == 404
    store.delete("k", "r")
    with pytest.raises(Refusal):
        store.items("k", "r")


def test_a_response_expires() -> None:
    now = [0.0]
    store = ResponseStore(lambda: now[0])
    store.keep(None, response("r"), [])
    now[0] = KEPT_SECONDS - 1
    assert store.response(None, "r")
    now[0] = KEPT_SECONDS
    with pytest.raises(Refusal):
        store.response(None, "r")


def test_the_store_has_a_bound() -> None:
    store = ResponseStore(max_bytes=1000)
    for n in range(20):
        store.keep(None, response(f"r{n}", "x" * 100), [])
    assert store.response(None, "r19")
    with pytest.raises(Refusal):
        store.response(None, "r0")
    store.keep(None, response("large", "x" * 2000), [])
    with pytest.raises(Refusal):
        store.response(None, "large")
    assert store.response(None, "r19")


def test_an_item_is_found_by_its_id_as_long_as_its_response_is_kept() -> None:
    now = [0.0]
    store = ResponseStore(lambda: now[0])
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": "a"}
    store.keep("k", {"id": "r", "output": [item]}, [])
    assert store.item("k", "msg_1") == item
    assert store.item("other", "msg_1") is None and store.item("k", "msg_2") is None
    store.delete("k", "r")
    assert store.item("k", "msg_1") is None and not store._responses_of_items
    store.keep(None, {"id": "r", "output": [item]}, [])
    now[0] = KEPT_SECONDS
    assert store.item(None, "msg_1") is None and not store._responses_of_items
