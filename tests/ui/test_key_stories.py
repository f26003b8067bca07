"""Stories of holders of keys: what a key may not do, a key that is changed, and two servers in one browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open, scripted_home
from tests.ui.pages import log_in, look

pytestmark = [pytest.mark.browser, pytest.mark.process]


def create_key(home: ScriptedHome, name: str, *scopes: str) -> str:
    created = home.cli("keys", "create", "--name", name, *(word for scope in scopes for word in ("--scope", scope)))
    assert created.returncode == 0, created.stderr
    found = re.search(r"sk-\S+", created.stdout)
    assert found is not None, created.stdout
    return found[0]


def test_a_key_is_changed_limited_and_revoked_under_an_open_page(own_home: ScriptedHome, open_page: Open) -> None:
    owner, guest = create_key(own_home, "owner", "use", "manage"), create_key(own_home, "guest@home", "use")
    page, watch = open_page(own_home)
    watch.expected.append("status of 403")
    log_in(page, watch, guest)
    # What the key may not do is said on the page that does it.
    page.get_by_role("link", name="Downloads", exact=True).click()
    page.get_by_text("This page needs a key that may manage the server.").wait_for()
    # Another browser is the owner's.
    other, others = open_page(own_home, "#/keys")
    log_in(other, others, owner)
    row = other.get_by_role("row", name=re.compile("^guest@home"))
    row.get_by_role("button", name="Change").click()
    form = other.locator("td.form")
    form.get_by_text("Models, limits and priority").click()
    form.get_by_label("Requests per minute").fill("7")
    form.get_by_label("Expires").select_option("in a week")
    form.get_by_role("button", name="Change").click()
    row.get_by_text("7 requests/min").wait_for()
    keys = httpx2.get(f"{own_home.url}/v1/keys", headers={"Authorization": f"Bearer {owner}"}).json()
    [changed] = [each for each in keys if each["name"].startswith("guest")]
    assert changed["requests_per_minute"] == 7 and changed["expires"] is not None and changed["scopes"] == ["use"]
    row.get_by_role("button", name="Revoke").click()
    row.get_by_text("revoked").wait_for()
    # The page of the guest asks for a key at its next question.
    page.reload()
    page.get_by_role("heading", name="Log in").wait_for()


def test_two_browsers_change_one_key_and_none_undoes_the_change_of_the_other(
    own_home: ScriptedHome, open_page: Open
) -> None:
    owner = create_key(own_home, "owner", "use", "manage")
    create_key(own_home, "shared", "use", "monitor")
    pages = []
    for _ in range(2):
        page, watch = open_page(own_home, "#/keys")
        watch.expected.append("status of 400")
        log_in(page, watch, owner)
        page.get_by_role("row", name=re.compile("^shared")).get_by_role("button", name="Change").click()
        page.locator("td.form").get_by_text("Models, limits and priority").click()
        pages.append(page)
    first, second = pages
    first.locator("td.form").get_by_label("Requests per minute").fill("7")
    first.locator("td.form").get_by_label("Requests per minute").press("Enter")
    first.get_by_role("row", name=re.compile("^shared.*7 requests.min")).wait_for()
    second.locator("td.form").get_by_label("Concurrent requests").fill("1")
    second.locator("td.form").get_by_role("button", name="Change").click()
    second.get_by_role("row", name=re.compile("^shared.*7 requests.min, 1 concurrent request ")).wait_for()
    listed = httpx2.get(f"{own_home.url}/v1/keys", headers={"Authorization": f"Bearer {owner}"}).json()
    assert [sorted(each["scopes"]) for each in listed if each["name"] == "shared"] == [["monitor", "use"]]
    # One of them revokes the key while the other changes it.
    second.get_by_role("row", name=re.compile("^shared")).get_by_role("button", name="Change").click()
    first.get_by_role("row", name=re.compile("^shared")).get_by_role("button", name="Revoke").click()
    first.get_by_role("row", name=re.compile("^shared.*revoked")).wait_for()
    second.locator("td.form").get_by_label("Name", exact=True).fill("renamed")
    second.locator("td.form").get_by_role("button", name="Change").click()
    second.get_by_role("alert").wait_for()
    second.get_by_role("row", name=re.compile("^shared.*revoked")).wait_for()


def test_the_search_of_the_keys_finds_names_permissions_and_states(own_home: ScriptedHome, open_page: Open) -> None:
    owner = create_key(own_home, "owner", "use", "manage")
    for name, scope in (("alice", "use"), ("alicia", "monitor"), ("bob", "use")):
        create_key(own_home, name, scope)
    page, watch = open_page(own_home, "#/keys")
    log_in(page, watch, owner)
    page.get_by_role("row", name=re.compile("^bob")).get_by_role("button", name="Revoke").click()
    page.get_by_role("row", name=re.compile("^bob.*revoked")).wait_for()

    def names(text: str) -> list[str]:
        page.get_by_role("searchbox", name="Search").fill(text)
        return [each.split("\t")[0] for each in page.locator("tbody tr:not(:has(td.form))").all_inner_texts()]

    found = {text: sorted(names(text)) for text in (" ALI ", "monitor", "revoked", "nobody", "")}
    assert found == {
        " ALI ": ["alice", "alicia"],
        "monitor": ["alicia"],
        "revoked": ["bob"],
        "nobody": [],
        "": ["alice", "alicia", "bob", "owner"],
    }
    # A change that is not sent outlives the search.
    page.get_by_role("row", name=re.compile("^alice")).get_by_role("button", name="Change").click()
    page.locator("td.form").get_by_label("Name", exact=True).fill("alice at home")
    assert sorted(names("bob")) == ["alice", "bob"]
    assert page.locator("td.form").get_by_label("Name", exact=True).input_value() == "alice at home"
    page.get_by_role("status").get_by_text("1 found").wait_for()


def test_the_state_of_a_key_is_on_one_line_in_chinese(own_home: ScriptedHome, open_page: Open) -> None:
    owner = create_key(own_home, "owner", "use", "manage")
    create_key(own_home, "the-monitor-of-the-second-rack-of-the-first-floor", "monitor")
    page, watch = open_page(own_home, "#/keys")
    log_in(page, watch, owner)
    row = page.get_by_role("row", name=re.compile("^the-monitor"))
    row.get_by_role("button", name="Change").click()
    page.locator("td.form").get_by_text("Models, limits and priority").click()
    page.locator("td.form").get_by_label("Requests per minute").fill("60")
    page.locator("td.form").get_by_label("Tokens per minute").fill("100000")
    page.locator("td.form").get_by_label("Expires").select_option("in a week")
    page.locator("td.form").get_by_role("button", name="Change").click()
    row.get_by_text("100,000 tokens/min").wait_for()
    row.get_by_role("button", name="Revoke").click()
    row.get_by_text("revoked").wait_for()
    page.set_viewport_size({"width": 1200, "height": 800})
    look(page, theme="light", language="zh")
    lines = row.get_by_text("已吊销").evaluate(
        """(cell) => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          return new Set([...range.getClientRects()].map((each) => each.top)).size;
        }"""
    )
    assert lines == 1


def test_escape_leaves_the_change_of_a_key(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(own_home, "#/keys")
    page.get_by_role("button", name="Create").and_(page.locator(":enabled")).wait_for()
    page.get_by_label("Name", exact=True).fill("mine")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Change").click()
    page.locator("td.form").get_by_label("Name", exact=True).fill("other")
    page.keyboard.press("Escape")
    page.locator("td.form").wait_for(state="detached")
    page.get_by_role("row", name=re.compile("^mine")).wait_for()
    assert watch.unexpected() == []


def test_a_browser_is_logged_in_to_two_servers_on_two_ports(
    own_home: ScriptedHome, open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    with scripted_home(tmp_path / "second") as second:
        homes = [(home, create_key(home, "owner", "use", "manage")) for home in (own_home, second)]
        page, watch = open_page(own_home)
        # The page of one server still asks it for plans when the other one is opened.
        watch.expected += [
            "dry_run=true",
            "net::ERR_INCOMPLETE_CHUNKED",
            "net::ERR_CONNECTION_RE",
            *(f"request to another host: {home.url}/" for home, _key in homes),
        ]
        for home, key in homes:
            watch.address = home.url
            page.goto(f"{home.url}/ui/")
            log_in(page, watch, key)
        for home, _key in homes:
            watch.address = home.url
            page.goto(f"{home.url}/ui/")
            page.get_by_role("button", name="Log out").wait_for()
        assert len({cookie["name"] for cookie in page.context.cookies()}) == 2
        # A page of one server may do nothing on the other, though the browser has a cookie for it.
        watch.expected += ["policy violation: connect-src", "Content Security Policy", "Failed to fetch"]
        refused = page.evaluate(
            """async (url) => fetch(`${url}/v1/keys`, {
              method: "POST", credentials: "include", headers: {"x-xinference": "1"}, body: "{}",
            }).then((answer) => answer.status, () => 0)""",
            own_home.url,
        )
        assert refused == 0
        [cookie] = [each for each in page.context.cookies() if str(own_home.port) in each["name"]]
        answer = httpx2.post(
            f"{own_home.url}/v1/keys",
            json={"name": "stolen"},
            headers={"Cookie": f"{cookie['name']}={cookie['value']}", "Origin": second.url, "X-Xinference": "1"},
        )
        assert answer.status_code == 403, answer.text


def test_a_message_that_is_not_sent_outlives_the_session(own_home: ScriptedHome, open_page: Open) -> None:
    assert own_home.post_launch("shown").is_success
    owner, guest = create_key(own_home, "owner", "use", "manage"), create_key(own_home, "guest", "use")
    page, watch = open_page(own_home, "#/chat?model=shown")
    watch.expected.append("net::ERR_INCOMPLETE_CHUNKED")
    log_in(page, watch, guest)
    page.get_by_label("Message", exact=True).fill("A long question")
    headers = {"Authorization": f"Bearer {owner}"}
    [key] = [each for each in httpx2.get(f"{own_home.url}/v1/keys", headers=headers).json() if each["name"] == "guest"]
    assert httpx2.delete(f"{own_home.url}/v1/keys/{key['id']}", headers=headers).is_success
    page.get_by_label("Key", exact=True).fill(owner)
    # The holder of a session that has ended is not named any more.
    assert page.get_by_role("button", name="Log out").count() == 0
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "A long question"
