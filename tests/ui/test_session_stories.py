"""Stories of sessions: the login says why a session has ended, and the tabs of a browser have one holder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import log_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.browser import Watch

pytestmark = [pytest.mark.browser, pytest.mark.process]


def created(home: ScriptedHome, name: str, *scopes: str) -> str:
    """A new key."""
    options = [part for scope in scopes or ("use",) for part in ("--scope", scope)]
    made = home.cli("keys", "create", "--name", name, *options, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


def second_tab(page: Page, watch: Watch) -> Page:
    """Another tab of the browser of `page`."""
    tab = page.context.new_page()
    watch.attach(tab)
    tab.goto(page.url)
    tab.get_by_role("button", name="Log out").wait_for()
    return tab


def open_page_with_key(home: ScriptedHome, open_page: Open) -> tuple[Page, Watch]:
    """A page that is logged in with the key `guest`."""
    guest = created(home, "guest")
    page, watch = open_page(home)
    log_in(page, watch, guest)
    return page, watch


def test_the_login_says_that_the_key_of_the_session_was_revoked(own_home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page_with_key(own_home, open_page)
    assert own_home.cli("keys", "revoke", "guest").returncode == 0
    page.get_by_text("Your session has ended: its key was revoked.").wait_for()
    page.reload()
    page.get_by_text("Your session has ended: its key was revoked.").wait_for()
    page.evaluate("localStorage['xinference.language'] = 'zh'; dispatchEvent(new StorageEvent('storage'))")
    page.get_by_text("其密钥已被吊销。").wait_for()


def test_the_login_says_that_the_session_has_ended_after_a_restart_that_forgot_why(
    own_home: ScriptedHome, open_page: Open
) -> None:
    page, _ = open_page_with_key(own_home, open_page)
    assert own_home.cli("keys", "revoke", "guest").returncode == 0
    page.get_by_text("Your session has ended: its key was revoked.").wait_for()
    page.goto("about:blank")
    own_home.kill()
    own_home.start()
    page.goto(f"{own_home.url}/ui/")
    page.get_by_role("heading", name="Log in").wait_for()
    page.get_by_text("Your session has ended").wait_for()


def test_a_first_visit_gives_no_reason_and_an_old_link_gives_its_own(own_home: ScriptedHome, open_page: Open) -> None:
    created(own_home, "owner", "use", "manage")
    page, watch = open_page(own_home)
    watch.expected.append("status of 401")
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.locator("main form [role=status]").count() == 0
    page.goto("about:blank")
    page.goto(f"{own_home.url}/ui/#code=used-before")
    page.get_by_text("The code of this link was used before or has expired.").wait_for()


def test_a_log_out_is_one_of_all_tabs(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page_with_key(own_home, open_page)
    tab = second_tab(page, watch)
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You have logged out.").wait_for()
    tab.get_by_text("You have logged out in another tab.").wait_for()


def test_the_other_tabs_follow_a_login_with_another_key_and_say_so(own_home: ScriptedHome, open_page: Open) -> None:
    owner = created(own_home, "owner", "use", "manage")
    page, watch = open_page_with_key(own_home, open_page)
    tab = second_tab(page, watch)
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You have logged out.").wait_for()
    log_in(page, watch, owner)
    notice = tab.get_by_text("Another tab has logged in as owner.")
    notice.wait_for()
    tab.locator("nav").get_by_text("owner").wait_for()
    tab.get_by_role("button", name="Close").click()
    notice.wait_for(state="detached")
    assert page.get_by_text("Another tab has logged in").count() == 0


def test_a_login_with_the_same_key_is_no_news(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page_with_key(own_home, open_page)
    tab = second_tab(page, watch)
    again = created(own_home, "again")
    page.get_by_role("button", name="Log out").click()
    tab.get_by_text("You have logged out in another tab.").wait_for()
    log_in(page, watch, again)
    tab.get_by_text("Another tab has logged in as again.").wait_for()
    page.get_by_role("button", name="Log out").click()
    tab.get_by_text("You have logged out in another tab.").wait_for()
    log_in(page, watch, again)
    tab.get_by_role("button", name="Log out").wait_for()
    assert tab.get_by_text("Another tab has logged in").count() == 0
