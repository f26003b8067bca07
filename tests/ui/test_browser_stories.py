"""Stories of the browser: the keys of the page, the theme before the first script, and files of an earlier version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from xinference import __version__

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.browser, pytest.mark.process]


def test_keys_go_to_pages_and_find_everything(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("shown").is_success
    page, _ = open_page(home)
    page.get_by_role("link", name="shown", exact=True).first.wait_for()
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.get_by_role("heading", name="Models", exact=True).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("g h")  # goes into the field
    assert page.get_by_role("searchbox", name="Name").input_value() == "g h"
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search everything")
    box.wait_for()
    page.keyboard.type("chat shown")
    page.get_by_role("option", name="shown").first.wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("region", name="Chat with shown").wait_for()
    box.wait_for(state="detached")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Single letters are shortcuts").uncheck()
    page.keyboard.press("Tab")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.keyboard.press("Control+k")
    box.wait_for()
    assert page.url.endswith("#/settings")


@pytest.mark.parametrize(("theme", "is_dark"), [("dark", True), ("light", False)])
def test_the_first_paint_has_the_theme_of_the_system(
    home: ScriptedHome, open_page: Open, theme: str, is_dark: bool
) -> None:
    page, _ = open_page(home, color_scheme=theme)
    page.route("**/app.js*", lambda route: None)  # no script comes
    page.goto(f"{home.url}/ui/?again", wait_until="commit")
    page.wait_for_function("() => document.styleSheets.length > 0 && document.body !== null")
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness < 200) is is_dark, colour
    page.unroute_all(behavior="ignoreErrors")


def test_a_page_of_an_earlier_version_loads_its_files_again_once(home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(home)
    page.get_by_text(__version__, exact=True).wait_for()  # it has asked the first server
    loads = []
    page.on("load", lambda _: loads.append(page.url))

    def answer(route: Route) -> None:
        fetched = route.fetch()
        route.fulfill(response=fetched, body=json.dumps(fetched.json() | {"version": "99.0"}))

    page.route("**/status", answer)
    # The server of the page is another one from now on, as after an upgrade: the stream begins with another id.
    watch.expected += ["net::ERR_CONNECTION_RE", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_EMPTY_RESPONSE"]
    with page.expect_event("load"):  # it may come at once, if the page asks for the state meanwhile
        page.evaluate("dispatchEvent(new Event('online'))")
        page.evaluate("dispatchEvent(new StorageEvent('storage'))")
        home.kill()
        home.start()
    page.locator("main h1").wait_for()
    page.get_by_text("99.0", exact=True).wait_for()
    assert len(loads) <= 2
