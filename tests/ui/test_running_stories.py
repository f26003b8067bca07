"""Stories of models that run: a cancelled launch, figures of the engine, long logs, and long names."""

from __future__ import annotations

import re

import httpx2
import pytest

from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import visit

pytestmark = [pytest.mark.browser, pytest.mark.process]
LINES = 100_000


def test_a_launch_is_seen_after_a_reload_cancelled_and_repeated(home: ScriptedHome, open_page: Open) -> None:
    script = {"health_delay": 600, "text": "again "}
    assert home.post_launch("slow-to-start", wait_ready=False, script=script).is_success
    page, watch = open_page(home, "#/running/slow-to-start")
    page.get_by_role("button", name="Cancel the launch").wait_for()
    page.reload()
    page.get_by_role("button", name="Cancel the launch").click()
    page.get_by_text("No model with this name is running.").wait_for()
    page.get_by_role("link", name=re.compile("^Running")).first.click()
    page.get_by_role("link", name="Launch again: slow-to-start").click()
    page.get_by_text("What will happen").wait_for()
    assert page.get_by_label("Name in requests").input_value() == "slow-to-start"
    assert page.get_by_role("radio", name="Fifth").is_checked()
    options = page.get_by_label("One option per line: name=value")
    assert '"health_delay":600' in options.input_value()
    options.fill('script={"text": "again "}')
    page.get_by_role("button", name="Launch", exact=True).click()
    page.get_by_role("link", name="Chat", exact=True).nth(1).click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("again again").wait_for()
    page.get_by_text("The request", exact=True).click()
    page.get_by_text(re.compile(r"curl -N .*/v1/chat/completions")).wait_for()
    page.get_by_role("button", name="Events of the answer").click()
    page.get_by_text(re.compile(r"data: \[DONE\]")).wait_for()
    assert watch.unexpected() == []


def test_the_engine_of_a_model_is_shown_and_how_to_call_it(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("shown").is_success
    page, _ = open_page(home, "#/running/shown/engine")
    # The scripted engine has no metrics of its own.
    page.get_by_text("No replica reports figures now.").wait_for()
    page.get_by_role("link", name="API", exact=True).last.click()
    page.get_by_text(f'Client("{home.url}").get_model("shown")').wait_for()
    visit(page, "api")
    page.get_by_role("button", name="Show the list").click()
    page.get_by_label("Search").fill("/v1/fits")
    page.get_by_role("row", name="GET /v1/fits").wait_for()


def test_the_message_of_an_empty_chart_covers_no_value_of_its_axis(own_home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(own_home, "#/activity/usage", viewport={"width": 1280, "height": 800})
    message = page.get_by_text("There are no measurements in this period.").last
    message.wait_for()
    covered = message.evaluate(
        """(message) => {
          const own = message.getBoundingClientRect();
          return [...message.parentElement.querySelectorAll("svg text")].filter((each) => {
            const other = each.getBoundingClientRect();
            return other.left < own.right && own.left < other.right && other.top < own.bottom && own.top < other.bottom;
          }).map((each) => each.textContent.trim());
        }"""
    )
    assert covered == []


def test_an_on_demand_model_is_pinned_while_it_runs(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("to-pin", on_demand=True, ttl=600).is_success
    page, _ = open_page(home, "#/running/to-pin")
    page.get_by_text("unloaded after 10 min without a request, may be unloaded for another model").wait_for()
    change = page.get_by_role("button", name="Change when the model is unloaded")
    change.click()
    page.get_by_label("Do not unload the model for another one").focus()
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement?.getAttribute('aria-expanded') === 'false'")
    change.click()
    page.get_by_label("Do not unload the model for another one").check()
    page.get_by_label("Unload after idle seconds (0: never)").fill("0")
    page.keyboard.press("Enter")
    page.get_by_text("not unloaded for another model", exact=True).wait_for()
    instance = home.instance("to-pin")
    assert (instance["ttl"], instance["pin"], instance["priority"]) == (0, True, 0)


def test_a_second_click_on_add_adds_no_second_replica(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("grows").is_success
    page, watch = open_page(home, "#/running/grows/replicas")
    page.get_by_label("Number of replicas").fill("2")
    with page.expect_response("**/grows/replicas?wait_ready=false"):
        page.get_by_role("button", name="Add 1").click()
    page.evaluate("document.querySelector('form.scale button').click()")
    page.get_by_role("row", name=re.compile("^1 ready")).wait_for()
    asked = [each for each in watch.requests if each.endswith("/grows/replicas?wait_ready=false")]
    assert len(asked) == 1
    assert len(home.instance("grows")["replicas"]) == 2


def test_a_long_log_with_colours_stays_small_and_ends_with_its_page(home: ScriptedHome, open_page: Open) -> None:
    script = {"print_lines": LINES, "line": "\x1b[31mline\x1b[0m {n} \x1b]8;;https://other.example\x1b\\link <b>"}
    assert home.post_launch("talker", script=script).is_success
    page, _ = open_page(home, "#/running/talker/logs")
    log = page.get_by_role("log")
    log.get_by_text(f"line {LINES - 1}").wait_for()
    shown = log.inner_text()
    assert "\x1b" not in shown and "<b>" in shown
    assert len(shown.splitlines()) <= 2001
    assert page.evaluate("document.getElementsByTagName('*').length") < 1500
    with page.expect_event("requestfailed", lambda request: "/logs" in request.url):
        visit(page, "machine")
    page.get_by_role("button", name="Show the log").click()
    page.get_by_role("log").get_by_text("talker").first.wait_for()


def test_a_model_with_a_long_name_is_scaled_and_ended(home: ScriptedHome, open_page: Open) -> None:
    uid = f"name-{'x' * 90}"
    assert home.post_launch(uid).is_success
    page, _ = open_page(home, f"#/running/{uid}/replicas", viewport={"width": 390, "height": 844})
    page.get_by_label("Number of replicas").fill("2")
    page.get_by_role("button", name="Add 1").click()
    until("two replicas run", lambda: len(home.instance(uid)["replicas"]) == 2)
    page.get_by_role("link", name="Logs").nth(1).wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    page.get_by_role("button", name="Terminate", exact=True).click()
    page.get_by_role("heading", name="Running models").wait_for()
    until("the model has ended", lambda: home.status(uid) == "GONE")
    assert httpx2.get(f"{home.url}/v1/models/instances").is_success
