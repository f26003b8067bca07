"""Stories of the browser's own buttons: back and forward through all pages, addresses of nothing, a lost network."""

from __future__ import annotations

import re

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import IS_THERE, PAGES, visit

pytestmark = [pytest.mark.browser, pytest.mark.process]


def test_back_and_forward_lead_through_all_pages(own_home: ScriptedHome, open_page: Open) -> None:
    own_home.post_launch("shown").raise_for_status()
    page, _ = open_page(own_home, "#/settings")
    page.locator("main h1").wait_for()
    for name in PAGES:
        visit(page, name)
    for name in reversed(PAGES[:-1]):
        page.go_back()
        page.wait_for_function(IS_THERE, arg=f"#/{name}")
    for name in PAGES[1:]:
        page.go_forward()
        page.wait_for_function(IS_THERE, arg=f"#/{name}")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("#/running/not-there", "No model with this name is running."),
        ("#/running/not-there/logs", "No model with this name is running."),
        ("#/launch/LLM/not-there", "There is no model named 'not-there'."),
        ("#/chat?model=not-there", "The model not-there is not running."),
        ("#/running/%E0%A4%A", "No model with this name is running."),
        ("#/not/a/page", "Home"),
    ],
)
def test_an_address_of_nothing_says_so(home: ScriptedHome, open_page: Open, address: str, words: str) -> None:
    page, watch = open_page(home, address)
    watch.expected += ["status of 404", "status of 400"]  # 400: the plan of such a launch
    page.locator("main").get_by_text(words).first.wait_for()


def test_a_network_that_was_away_is_used_again_without_a_reload(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(own_home, "#/running")
    page.get_by_text("No model is running.").wait_for()
    watch.expected += ["net::ERR_"]
    page.context.set_offline(True)
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("heading", name="Models").wait_for()
    page.get_by_role("link", name="Running", exact=True).click()
    own_home.post_launch("launched-meanwhile").raise_for_status()
    page.context.set_offline(False)
    page.get_by_role("link", name="launched-meanwhile").wait_for()
    page.get_by_role("link", name=re.compile("^Models")).first.click()
    page.get_by_text("baichuan-2", exact=True).wait_for()
    assert page.get_by_role("alert").count() == 0
