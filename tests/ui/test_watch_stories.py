"""Stories of the stream of all pages: ten tabs, a tab that takes the stream over, and a proxy that holds it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.browser import Watch
from tests.ui.conftest import Open

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.process]


def launch(home: ScriptedHome, uid: str) -> str:
    answer = home.post_launch(uid)
    assert answer.status_code == 200, answer.text
    return uid


def listed(page: Page, uid: str) -> None:
    page.get_by_role("link", name=uid, exact=True).wait_for()


def streams(watch: Watch) -> int:
    return sum("/v1/watch" in address for address in watch.requests)


def test_ten_tabs_share_one_stream_and_the_next_tab_takes_it_over(home: ScriptedHome, open_page: Open) -> None:
    first, watch = open_page(home, "#/running")
    first.get_by_role("heading", name="Running models").wait_for()
    pages = [first]
    for _ in range(9):
        page = first.context.new_page()
        watch.attach(page)
        page.goto(f"{home.url}/ui/#/running")
        pages.append(page)
    uid = launch(home, "in-ten-tabs")
    for page in pages:
        listed(page, uid)
    # A browser has six connections to a server: ten streams would leave none for anything else.
    assert streams(watch) == 1
    first.close()
    uid = launch(home, "in-nine-tabs")
    for page in pages[1:]:
        listed(page, uid)
    assert streams(watch) == 2


def test_the_page_asks_where_a_proxy_holds_the_stream_back(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, "#/running")
    page.get_by_role("heading", name="Running models").wait_for()
    held = []
    page.context.route("**/v1/watch", lambda route: held.append(route))
    page.reload()
    uid = launch(home, "behind-a-buffer")
    listed(page, uid)
    page.get_by_text("Updates every 5 s").wait_for()
    assert held
    page.context.unroute_all(behavior="ignoreErrors")
    page.reload()
    listed(page, uid)
    page.get_by_text("Updates every 5 s").wait_for(state="detached")


def test_pages_say_once_that_the_server_is_gone_and_are_read_again_when_it_is_back(
    own_home: ScriptedHome, open_page: Open
) -> None:
    page, watch = open_page(own_home, "#/settings")
    page.get_by_text("XINFERENCE_HOME").first.wait_for()
    watch.expected += ["net::ERR_", "Failed to load resource"]
    gone = page.get_by_text("The server does not answer.")
    own_home.kill()
    gone.wait_for()
    page.get_by_role("link", name="Home", exact=True).click()
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_role("heading", name="Settings of the server").wait_for()
    page.get_by_text("The page connects again by itself").wait_for()
    assert gone.count() == 1
    # The files of this page are not here yet.
    page.get_by_role("link", name="Keys", exact=True).click()
    own_home.start()
    page.get_by_text("There is no key yet").wait_for()
    gone.wait_for(state="detached")
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_text("XINFERENCE_HOME").first.wait_for()


def test_a_page_that_could_not_be_read_is_read_when_the_server_is_back(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(own_home, "#/settings")
    page.get_by_text("XINFERENCE_HOME").first.wait_for()
    watch.expected += ["net::ERR_", "Failed to load resource"]
    page.get_by_role("link", name="Home", exact=True).click()
    own_home.kill()
    page.get_by_text("The server does not answer.").wait_for()
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_role("heading", name="Settings of the server").wait_for()
    own_home.start()
    page.get_by_text("XINFERENCE_HOME").first.wait_for()


def test_a_log_is_read_on_after_a_restart_of_the_server(own_home: ScriptedHome, open_page: Open) -> None:
    uid = launch(own_home, "read-on")
    page, watch = open_page(own_home, f"#/running/{uid}/logs")
    watch.expected += ["net::ERR_INCOMPLETE_CHUNKED", "net::ERR_CONNECTION_RE", "net::ERR_EMPTY_RESPONSE"]
    log = page.get_by_role("log")
    log.get_by_text("listening on").wait_for()
    own_home.kill()
    page.get_by_text("The server does not answer.").wait_for()
    with page.expect_response(lambda answer: f"/models/{uid}/logs?" in answer.url and answer.ok):
        own_home.start()
    page.get_by_text("The server does not answer.").wait_for(state="detached")
    log.get_by_text("listening on").wait_for()
