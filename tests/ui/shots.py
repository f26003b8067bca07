"""Pictures of all pages for people to look at: each page in two widths, themes and languages, and one contact sheet.

``python -m tests.ui.shots FOLDER`` writes them; ``--docs`` writes the contact sheet and the pictures of README.md
into docs.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import ARGUMENTS, scripted_home
from tests.ui.pages import PAGES, look, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).parents[2] / "docs"
WIDTHS = {1280: 800, 390: 844}
PHONE = 760
LOOKS = (("light", "en"), ("dark", "zh"), ("dark", "en"), ("light", "zh"))
#: An answer with what Markdown has.
ANSWER = """A hash map finds a value by its key in constant time on average:

1. A **hash function** turns the key into a number.
2. The number, modulo the size of the table, is the *slot*.
3. Keys with the same slot are kept in a list.

```python
table[hash(key) % len(table)].append((key, value))
```

It is slow only when many keys share one slot."""
#: Pages with an error: a launch that does not fit, and one whose engine died.
ERRORS = ("launch/LLM/qwen3?size=235", "running/failing")
SHORT = (
    "A hash map stores pairs of keys and values. It computes the place of a value from its key, so it needs no search."
)
QUESTION = "How does a hash map work?"


def prepare(home: ScriptedHome) -> None:
    """Models that run, and requests that have ended."""
    assert home.post_launch("failing", script={"die": {"at_start": True}}).is_error
    models: dict[str, dict[str, Any]] = {
        "shown": {"script": {"chunks": 1, "text": ANSWER}},
        "small-and-quick": {"replica": 2, "script": {"chunks": 1, "text": SHORT}},
    }
    for uid, fields in models.items():
        home.post_launch(uid, **fields).raise_for_status()
        for n in range(3):
            body = {"model": uid, "stream": n > 0, "messages": [{"role": "user", "content": QUESTION}]}
            httpx2.post(f"{home.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()


def compare(page: Page) -> None:
    """Ask two models side by side."""
    visit(page, "chat?model=shown")
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("Message", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Branch").nth(1).wait_for()


def page_of(browser: Browser, home: ScriptedHome, width: int) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, locale="en-US", reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(f"{home.url}/ui/")
    page.locator("main h1").wait_for()
    return page


def shoot_looks(page: Page, folder: Path, name: str, looks: tuple[tuple[str, str], ...]) -> list[Path]:
    """Write the pictures of the page as it is now; their paths."""
    made = []
    width = (page.viewport_size or {"width": 0})["width"]
    for theme, language in looks:
        look(page, theme=theme, language=language)
        made.append(folder / f"{re.sub('[/?=]', '-', name)}-{width}-{theme}-{language}.png")
        page.screenshot(path=made[-1])
    return made


def shoot(browser: Browser, home: ScriptedHome, folder: Path, looks: tuple[tuple[str, str], ...]) -> list[Path]:
    """Write the pictures of all pages; their paths."""
    made = []
    for width in WIDTHS:
        page = page_of(browser, home, width)
        compare(page)
        for name in (*PAGES, *ERRORS):
            visit(page, name)
            made += shoot_looks(page, folder, f"{name or 'home'}", looks)
        if width < PHONE:
            page.locator("nav button[aria-controls=rest]").click()
            made += shoot_looks(page, folder, "menu", looks)
        page.context.close()
    return made


def data_address(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def sheet(browser: Browser, pictures: list[Path], target: Path) -> None:
    """All pictures in one, small."""
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    images = "".join(
        f'<figure><img src="{data_address(path)}"><figcaption>{path.stem}</figcaption></figure>' for path in pictures
    )
    style = "body{margin:12px;background:#777;color:#fff;font:11px sans-serif;display:flex;flex-wrap:wrap;gap:10px}"
    page.set_content(f"<style>{style}figure{{margin:0}}img{{height:190px;display:block}}</style>{images}")
    page.screenshot(path=target, full_page=True, type="jpeg", quality=60)
    page.close()


def for_docs(browser: Browser, home: ScriptedHome) -> None:
    """The pictures of README.md."""
    page = page_of(browser, home, 1280)
    compare(page)
    page.screenshot(path=DOCS / "web-page-chat.jpg", type="jpeg", quality=70)
    visit(page, "launch/LLM/qwen3?size=4&context=8192")
    page.locator("button.cell").first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.screenshot(path=DOCS / "web-page-launch.jpg", type="jpeg", quality=70)
    page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the pictures of the documentation, too")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, scripted_home(Path(folder)) as home, sync_playwright() as playwright:
        prepare(home)
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        looks = LOOKS[:2] if arguments.docs else LOOKS
        pictures = shoot(browser, home, arguments.folder, looks)
        target = DOCS / "web-page.jpg" if arguments.docs else arguments.folder / "contact-sheet.jpg"
        # The desk in light and English, the phone in dark and Chinese: a reader can take in each page once in each.
        shown = [path for path in pictures if path.stem.endswith(("1280-light-en", "390-dark-zh"))]
        sheet(browser, shown, target)
        if arguments.docs:
            for_docs(browser, home)
        browser.close()


if __name__ == "__main__":
    main()
