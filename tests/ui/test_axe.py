"""axe finds no violation on any page, in both themes and languages, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import PAGES, look, visit

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: `make test-ui` installs it"),
]
#: A theme changes nothing but colours, and a language nothing but texts: all rules see each theme and each language
#: once, and the rule of contrast, which both matter to, sees all four.
ALL_RULES = (("light", "en"), ("dark", "zh"))
CONTRAST_ONLY = (("dark", "en"), ("light", "zh"))
RUN = """async (only) => (await axe.run(document, {preload: false, resultTypes: ["violations"], ...only}))
  .violations.map((each) => `${each.id}: ${each.nodes.slice(0, 3).map(
    (node) => `${node.target} ${node.html.slice(0, 160)}`).join(" | ")}`)"""
WIDER = "() => Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"
CONTRAST = {"runOnly": ["color-contrast"]}


@pytest.fixture(scope="module")
def shown(home: ScriptedHome) -> Iterator[ScriptedHome]:
    assert home.post_launch("shown").status_code == 200
    yield home


def examined(page: Page, only: dict[str, Any]) -> list[str]:
    found: list[str] = page.evaluate(RUN, only)
    if wider := page.evaluate(WIDER):
        found.append(f"scrolls sideways by {wider} px")
    return found


def test_a_violation_is_found(shown: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(shown)
    page.locator("main h1").wait_for()
    page.evaluate(AXE.read_text())
    page.evaluate(
        """() => {
          const words = document.createElement("p");
          words.textContent = "pale";
          words.style.color = "rgb(240, 240, 240)";
          words.style.background = "white";
          document.querySelector("main").append(document.createElement("select"), words);
        }"""
    )
    assert {each.split(":")[0] for each in examined(page, {})} >= {"select-name", "color-contrast"}
    assert [each.split(":")[0] for each in examined(page, CONTRAST)] == ["color-contrast"]


@pytest.mark.parametrize("width", [1440, 390])
def test_no_page_violates_a_rule(shown: ScriptedHome, open_page: Open, width: int) -> None:
    page, _ = open_page(shown, viewport={"width": width, "height": 900})
    page.locator("main h1").wait_for()
    page.evaluate(AXE.read_text())
    contrasts = CONTRAST_ONLY if width == 1440 else ()  # a width changes no colour
    found: dict[str, list[str]] = {}
    for name in PAGES:
        visit(page, name)
        for (theme, language), only in [
            *((looks, {}) for looks in ALL_RULES),
            *((looks, CONTRAST) for looks in contrasts),
        ]:
            look(page, theme=theme, language=language)
            if violations := examined(page, only):
                found[f"{name} {theme} {language}"] = violations
    assert not found, "\n".join(f"{state}: {violations}" for state, violations in found.items())
