"""The conditions for the unload of a model on demand: changed while it runs, and kept by the next server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"

pytestmark = pytest.mark.process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[ScriptedHome]:
    weights = write_gguf(TINY, "Q8_0", tmp_path / "tiny.gguf")
    (tmp_path / "home").mkdir()
    made = ScriptedHome(tmp_path / "home", free_port(), {}, weights=weights)
    try:
        made.start()
        yield made
    finally:
        made.clean_up()


def change(home: ScriptedHome, uid: str, body: Any) -> httpx2.Response:
    return httpx2.patch(f"{home.url}/v1/models/{uid}", json=body, timeout=60)


def terms(home: ScriptedHome, uid: str) -> dict[str, Any]:
    instance = home.instance(uid)
    return {name: instance[name] for name in ("ttl", "pin", "priority")}


def loaded(home: ScriptedHome, uid: str) -> str:
    """A model on demand that has answered a request."""
    home.post_launch(uid, on_demand=True, ttl=3600).raise_for_status()
    body = {"model": uid, "messages": [{"role": "user", "content": "hi"}]}
    httpx2.post(f"{home.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    return uid


def test_changed_terms_are_shown_stored_and_hold_for_the_next_server(home: ScriptedHome) -> None:
    uid = loaded(home, "changed")
    assert terms(home, uid) == {"ttl": 3600.0, "pin": False, "priority": 0}
    answer = change(home, uid, {"pin": True, "priority": 3})
    assert answer.status_code == 200, answer.text
    assert answer.json()["pin"] is True
    pid = home.engine_pid(uid)
    assert change(home, uid, {"ttl": None}).is_success
    assert terms(home, uid) == {"ttl": 0.0, "pin": True, "priority": 3}
    home.kill()
    home.start()
    until("the engine is adopted", lambda: home.status(uid) == "READY")
    assert terms(home, uid) == {"ttl": 0.0, "pin": True, "priority": 3}
    assert home.engine_pid(uid) == pid


def test_a_shorter_time_unloads_a_model_that_is_idle_already(home: ScriptedHome) -> None:
    uid = loaded(home, "idle")
    assert change(home, uid, {"ttl": 0.1}).is_success
    until("the model is unloaded", lambda: home.status(uid) == "UNLOADED")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "The body changes nothing."),
        ({"ttl": -1}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"pin": None}, "pin"),
        ({"priority": 2**31}, "priority"),
        ({"pinned": True}, "pinned"),
        ([], "body"),
    ],
)
def test_terms_that_mean_nothing_are_refused(home: ScriptedHome, body: Any, said: str) -> None:
    home.post_launch("m", on_demand=True).raise_for_status()
    before = terms(home, "m")
    answer = change(home, "m", body)
    assert answer.status_code == 400 and said in answer.text
    assert terms(home, "m") == before


def test_a_model_that_is_not_on_demand_has_no_terms(home: ScriptedHome) -> None:
    home.post_launch("m").raise_for_status()
    answer = change(home, "m", {"pin": True})
    assert answer.status_code == 400
    assert "m is not on demand" in answer.text and "--on-demand" in answer.text
    assert change(home, "none", {"pin": True}).status_code == 404
