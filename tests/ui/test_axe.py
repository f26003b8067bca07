"""axe finds no violation on any page, in both themes and languages, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: `make test-ui` installs it"),
]
PAGES = (
    "",
    "chat",
    "chat/embeddings",
    "models",
    "register",
    "launch/LLM/qwen3",
    "running",
    "running/shown",
    "downloads",
    "activity",
    "machine",
    "keys",
    "api",
    "settings",
)
RUN = """async () => (await axe.run(document, {preload: false, resultTypes: ["violations"]})).violations.map((each) =>
  `${each.id}: ${each.nodes.slice(0, 3).map((node) => `${node.target} ${node.html.slice(0, 160)}`).join(" | ")}`)"""
WIDER = "() => Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"


@pytest.fixture(scope="module")
def shown(home: ScriptedHome) -> Iterator[ScriptedHome]:
    assert home.post_launch("shown").status_code == 200
    yield home


def test_a_violation_is_found(shown: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(shown)
    page.locator("main h1").wait_for()
    page.evaluate(AXE.read_text())
    page.evaluate("document.querySelector('main').append(document.createElement('select'))")
    assert [each for each in page.evaluate(RUN) if each.startswith("select-name")]


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_violates_a_rule(shown: ScriptedHome, open_page: Open, theme: str, language: str, width: int) -> None:
    looks = f"localStorage['xinference.theme'] = '{theme}'; localStorage['xinference.language'] = '{language}';"
    page, _ = open_page(shown, script=looks, viewport={"width": width, "height": 900})
    found: dict[str, Any] = {}
    for name in PAGES:
        page.goto(f"{shown.url}/ui/#/{name}")
        page.reload(wait_until="networkidle")
        page.locator("main h1").wait_for()
        page.evaluate(AXE.read_text())
        violations = page.evaluate(RUN)
        if wider := page.evaluate(WIDER):
            violations.append(f"scrolls sideways by {wider} px")
        if violations:
            found[name] = violations
    assert found == {}
