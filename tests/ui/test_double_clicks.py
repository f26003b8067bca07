"""Stories of impatient users: the second click of a double click starts nothing again."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx2
import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.process]


def test_a_double_click_on_launch_launches_once(own_home: ScriptedHome, open_page: Open) -> None:
    choices = {"format": "ggufv2", "quantization": "Q8_0", "engine": "Fifth", "path": str(own_home.weights)}
    page, watch = open_page(own_home, f"#/launch/LLM/llama-2-chat?{urlencode(choices)}")
    button = page.get_by_role("button", name="Launch", exact=True)
    button.and_(page.locator(":enabled")).wait_for()
    button.dblclick()
    page.get_by_role("link", name="Chat", exact=True).nth(1).wait_for()
    assert len([each for each in watch.requests if each.endswith("/v1/models?wait_ready=false")]) == 1
    assert len(httpx2.get(f"{own_home.url}/v1/models/instances").json()) == 1


def test_a_double_click_on_create_makes_one_key(own_home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(own_home, "#/keys")
    button = page.get_by_role("button", name="Create")
    button.and_(page.locator(":enabled")).wait_for()
    page.get_by_label("Name", exact=True).fill("once")
    button.dblclick()
    page.get_by_text("The key once is shown only now").wait_for()
    page.get_by_role("button", name="Log out").wait_for()
    page.locator("tbody tr").first.wait_for()
    assert page.locator("tbody tr").count() == 1


def test_a_double_click_on_send_asks_once(home: ScriptedHome, open_page: Open) -> None:
    home.post_launch("asked-once").raise_for_status()
    page, _ = open_page(home, "#/chat?model=asked-once")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").dblclick()
    page.get_by_role("button", name="Branch").wait_for()
    assert page.locator(".message.user").count() == 1


def test_a_double_click_on_regenerate_asks_once_again(home: ScriptedHome, open_page: Open) -> None:
    home.post_launch("again-once", script={"chunks": 20, "interval": 0.05}).raise_for_status()
    page, watch = open_page(home, "#/chat?model=again-once")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Regenerate").dblclick()
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    page.get_by_role("button", name="Branch").wait_for()
    assert len([each for each in watch.requests if each.endswith("/v1/chat/completions")]) == 2
