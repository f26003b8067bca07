"""The page on a phone: nothing is wider than the window, and each page is reached by the bar at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import PAGES, look, visit

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.process]
LONG_NAME = f"phone-{'x' * 80}"
#: What ends outside of the window, except in boxes that scroll by themselves; the bar may not scroll.
OUTSIDE = """() => {
  const width = document.documentElement.clientWidth;
  const found = [];
  if (document.documentElement.scrollWidth > width) found.push(`the page: ${document.documentElement.scrollWidth} px`);
  const scrolls = (element) => element !== null && element !== document.body &&
    (["auto", "scroll"].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  for (const element of document.querySelectorAll("main *, .frame > nav *")) {
    const box = element.getBoundingClientRect();
    if (box.width <= 1 || box.height <= 1 || box.right <= width + 0.5 && box.left >= -0.5) continue;
    if (!scrolls(element.parentElement)) found.push(`${element.tagName}.${element.className}: to ${box.right} px`);
  }
  const bar = document.querySelector(".frame > nav");
  for (const element of [bar, ...bar.querySelectorAll("ul")])
    if (element.scrollWidth > element.clientWidth) found.push(`the bar: ${element.scrollWidth} px`);
  return [...new Set(found)].slice(0, 5);
}"""


def enter(page: Page, name: str) -> None:
    page.get_by_role("button", name="More").click()
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "zh")])
def test_nothing_is_wider_than_a_phone(
    home: ScriptedHome, open_page: Open, width: int, theme: str, language: str
) -> None:
    for uid in ("shown", LONG_NAME):
        assert home.post_launch(uid).status_code == 200
    page, _ = open_page(home, viewport={"width": width, "height": 740})
    page.locator("main h1").wait_for()
    look(page, theme=theme, language=language)
    found = {}
    for name in (*PAGES, f"running/{LONG_NAME}", f"running/{LONG_NAME}/replicas"):
        visit(page, name)
        if outside := page.evaluate(OUTSIDE):
            found[name] = outside
    assert not found, "\n".join(f"{name}: {outside}" for name, outside in found.items())


def test_pages_without_room_in_the_bar_are_behind_more(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, viewport={"width": 360, "height": 740})
    page.locator("main h1").wait_for()
    bar = page.get_by_role("navigation", name="Pages")
    assert [each.inner_text() for each in bar.get_by_role("link").all() if each.is_visible()] == [
        "Home",
        "Chat",
        "Models",
        "Running",
    ]
    for name in ("Downloads", "Activity", "Machine", "Keys", "API", "Settings"):
        enter(page, name)
        page.get_by_role("heading", level=1, name=name).wait_for()
        assert not bar.get_by_role("link", name="Keys").is_visible()
    more = page.get_by_role("button", name="More")
    more.click()
    page.get_by_label("Theme").first.select_option("dark")
    page.keyboard.press("Escape")
    assert not bar.get_by_role("link", name="Keys").is_visible()
    assert page.evaluate("document.activeElement.textContent").strip() == "More"
    more.click()
    page.locator("main h1").click(position={"x": 5, "y": 5})
    assert not bar.get_by_role("link", name="Keys").is_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_chosen_tab_is_seen(home: ScriptedHome, open_page: Open, language: str) -> None:
    assert home.post_launch("shown").status_code == 200
    page, _ = open_page(home, viewport={"width": 360, "height": 740})
    page.locator("main h1").wait_for()
    look(page, theme="light", language=language)
    for name in ("running/shown/api", "running/shown", "chat/tokens"):
        visit(page, name)
        box = page.locator("main nav a[aria-current=page]").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360, (name, box)


#: Controls that are lower or narrower than 44 px; links in a text are as high as its lines.
SMALL = """() => {
  const found = [];
  for (const each of document.querySelectorAll(
      "main :is(button, select, summary, label.inline, nav a, input:not([type=checkbox], [type=radio]))")) {
    const box = each.getBoundingClientRect();
    if (box.height && (box.height < 44 || box.width < 24))
      found.push(`${each.tagName} ${box.width} x ${box.height} ${each.textContent.trim().slice(0, 40)}`);
  }
  return [...new Set(found)].slice(0, 5);
}"""


def test_controls_are_large_enough_for_a_finger(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("shown").status_code == 200
    page, _ = open_page(home, viewport={"width": 390, "height": 740}, has_touch=True)
    page.locator("main h1").wait_for()
    found = {}
    for name in PAGES:
        visit(page, name)
        if small := page.evaluate(SMALL):
            found[name] = small
    assert not found, "\n".join(f"{name}: {small}" for name, small in found.items())


@pytest.mark.parametrize("width", [390, 820])
def test_the_plan_is_above_the_button_that_launches_it(home: ScriptedHome, open_page: Open, width: int) -> None:
    page, _ = open_page(home, "#/launch/LLM/smollm2-instruct", viewport={"width": width, "height": 740})
    plan, button = page.get_by_text("What will happen"), page.get_by_role("button", name="Launch", exact=True)
    plan.wait_for()
    assert bottom(plan) < top(button)
    assert bottom(page.locator("section[aria-label=Plan]")) <= top(button)


def test_a_refused_launch_says_so_above_its_button(home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(home, "#/launch/LLM/qwen3?size=235", viewport={"width": 390, "height": 740})
    watch.expected.append("status of 400")
    box = page.get_by_role("region", name="Plan").get_by_role("alert")
    box.wait_for()
    assert 0 <= top(page.get_by_role("button", name="Launch", exact=True)) - bottom(box) < 40


def top(element: Locator) -> float:
    return edges(element)[0]


def bottom(element: Locator) -> float:
    return edges(element)[1]


def edges(element: Locator) -> tuple[float, float]:
    """The upper and the lower edge, in pixels."""
    box = element.bounding_box()
    assert box is not None
    return float(box["y"]), float(box["y"] + box["height"])
