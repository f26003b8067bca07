"""Stories of access: keys, login by a code, and a server that ends under an open page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.browser, pytest.mark.process]


def status_with(home: ScriptedHome, key: str) -> int:
    return httpx2.get(f"{home.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_key_is_made_and_revoked(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(own_home, "#/keys")

    def make(name: str, scope: str) -> str:
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_role("combobox", name="Permissions").select_option(scope)
        page.get_by_role("button", name="Create").click()
        page.get_by_text(f"The key {name} is shown only now").wait_for()
        key: str = page.locator(".made code").inner_text()
        return key

    owner = make("owner", "all")
    assert "every request needs one" in watch.dialogs[0]
    guest = make("guest", "use")
    assert [status_with(own_home, key) for key in (owner, guest, "sk-wrong")] == [200, 200, 401]
    page.get_by_role("row", name=re.compile("guest")).get_by_role("button", name="Revoke").click()
    page.get_by_role("row", name=re.compile("guest.*revoked")).wait_for()
    assert [status_with(own_home, key) for key in (owner, guest)] == [200, 401]
    page.get_by_role("link", name="Home", exact=True).click()
    page.get_by_role("button", name="Log out").click()
    watch.expected.append("status of 401")
    page.get_by_label("Key", exact=True).wait_for()


def test_the_first_key_stays_in_view_while_its_login_takes_long(own_home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(own_home, "#/keys")
    held: list[Route] = []
    page.route("**/v1/sessions", lambda route: held.append(route))
    page.get_by_label("Name", exact=True).fill("first")
    page.get_by_role("button", name="Create").click()
    page.get_by_text("The key first is shown only now").wait_for()
    until("the login is on its way", lambda: page.evaluate("1") == 1 and bool(held))
    # A page that follows the server connects again at once, and would be refused.
    page.evaluate("dispatchEvent(new Event('online')); fetch('./').then((answer) => answer.status)")
    held[0].continue_()
    page.get_by_role("row", name=re.compile("first")).wait_for()
    assert page.locator(".made code").inner_text().startswith("sk-")
    page.get_by_role("button", name="Log out").wait_for()


def test_the_first_key_may_manage_the_server(own_home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(own_home, "#/keys")
    permissions = page.get_by_role("combobox", name="Permissions")
    page.get_by_role("button", name="Create").and_(page.locator(":enabled")).wait_for()
    assert permissions.locator("option:disabled").all_inner_texts() == ["use models", "read metrics and state only"]


def test_a_key_that_is_being_made_leaves_no_field_open_whose_text_would_be_lost(
    own_home: ScriptedHome, open_page: Open
) -> None:
    page, _ = open_page(own_home, "#/keys")
    held: list[Route] = []
    page.route("**/v1/keys", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    name = page.get_by_label("Name", exact=True)
    name.fill("first")
    page.get_by_role("button", name="Create").click()
    page.locator("fieldset[disabled]").wait_for()
    assert name.is_disabled()
    held[0].continue_()
    page.get_by_text("The key first is shown only now").wait_for()
    page.locator("fieldset[disabled]").wait_for(state="detached")
    assert name.input_value() == ""


def test_a_code_logs_in_once(own_home: ScriptedHome, open_page: Open) -> None:
    created = own_home.cli("keys", "create", "--name", "owner", "--scope", "use", "--scope", "manage")
    assert created.returncode == 0, created.stderr
    address = own_home.cli("web", "--no-browser").stdout.strip()
    assert "#code=" in address
    page, _ = open_page(own_home, address)
    page.get_by_role("button", name="Log out").wait_for()
    assert "code" not in page.url
    second, watch = open_page(own_home, address)
    watch.expected.append("status of 401")
    second.get_by_role("heading", name="Log in").wait_for()
    assert "code" not in second.url


def test_a_page_comes_back_with_its_server(own_home: ScriptedHome, open_page: Open) -> None:
    assert own_home.post_launch("kept").status_code == 200
    page, watch = open_page(own_home, "#/running")
    page.get_by_role("link", name="kept").wait_for()
    watch.expected += ["net::ERR_CONNECTION_RE", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_EMPTY_RESPONSE"]
    own_home.kill()
    page.get_by_role("alert").wait_for()
    own_home.start()
    page.get_by_role("alert").wait_for(state="detached")
    page.get_by_role("link", name="kept").wait_for()
    assert own_home.status("kept") == "READY"
