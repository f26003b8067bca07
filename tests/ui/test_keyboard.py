"""A launch, a chat, a stop, an end and a new key without a mouse; the focus can be seen at each step."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.process]
#: The role and the name of the element that has the focus, as the user hears them; and whether its outline can be seen.
FOCUS = """() => {
  const element = document.activeElement;
  const label = element.getAttribute("aria-label") ?? (element.labels?.[0] ?? element).innerText ?? "";
  const style = getComputedStyle(element);
  return [label.trim().split("\\n")[0].trim(), element === document.body || style.outlineStyle !== "none"];
}"""
#: More steps than any page has controls.
MOST_STEPS = 150


def reach(page: Page, name: str) -> None:
    """Press Tab until the element with this name has the focus."""
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        label, is_visible = page.evaluate(FOCUS)
        assert is_visible, f"the focus on {label!r} cannot be seen"
        if re.fullmatch(name, label):
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def press(page: Page, name: str) -> None:
    reach(page, name)
    page.keyboard.press("Enter")


def test_a_launch_a_chat_a_stop_and_a_key_by_the_keyboard(own_home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(own_home)
    page.get_by_role("heading", name="Home").wait_for()
    # Launch: from a file, by its registration.
    press(page, "Models")
    page.get_by_role("heading", name="Models").wait_for()
    press(page, "Register a model")
    page.get_by_role("heading", name="Register a model").wait_for()
    reach(page, "(Path|Folder|File|Weights).*")
    page.keyboard.type(str(own_home.weights))
    press(page, "Draft the registration")
    page.get_by_role("button", name="Register", exact=True, disabled=False).wait_for()
    press(page, "Register")
    page.get_by_role("radio", name="Fifth").wait_for()
    reach(page, "chosen for you")
    while page.evaluate("document.activeElement.value") != "Fifth":
        page.keyboard.press("ArrowDown")
    page.get_by_text("What will happen").wait_for()
    reach(page, "Options of the engine by name")
    page.keyboard.press("Enter")
    reach(page, "One option per line.*")
    page.get_by_role("button", name="Launch", exact=True, disabled=False).wait_for()
    press(page, "Launch")
    page.get_by_role("link", name="Chat", exact=True).nth(1).wait_for()
    # Chat, and a stop.
    page.evaluate("document.querySelector('main').focus()")
    press(page, "Chat")
    page.get_by_label("Message", exact=True).wait_for()
    reach(page, "Message")
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("word word word").wait_for()
    slow = own_home.post_launch("slow", script={"chunks": 400, "interval": 0.1, "text": "slow "})
    assert slow.status_code == 200
    page.evaluate("document.querySelector('main').focus()")
    reach(page, "Model")
    while page.evaluate("document.activeElement.value") != "slow":
        page.keyboard.press("ArrowDown")
    reach(page, "Message")
    page.keyboard.type("Hello again")
    page.keyboard.press("Enter")
    page.get_by_text("slow slow").wait_for()
    press(page, "Stop")
    page.get_by_text(re.compile("out · stopped")).wait_for()
    # The end of a model.
    page.evaluate("document.querySelector('nav a').focus()")
    press(page, "Running.*")
    page.get_by_role("heading", name="Running models").wait_for()
    press(page, "slow")
    page.get_by_role("heading", name="slow").wait_for()
    press(page, "Terminate")
    until("the model has ended", lambda: own_home.status("slow") == "GONE")
    # A key.
    page.evaluate("document.querySelector('nav a').focus()")
    press(page, "Keys")
    page.get_by_role("heading", name="Keys").wait_for()
    reach(page, "Name")
    page.keyboard.type("by-keyboard")
    press(page, "Create")
    page.get_by_text("The key by-keyboard is shown only now").wait_for()
    assert any("Terminate slow?" in each for each in watch.dialogs)
