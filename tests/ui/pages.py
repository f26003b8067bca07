"""All pages of the web page, and the way to one of them without a reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.browser import Watch

#: The pages with one model that runs, `shown`.
PAGES = (
    "",
    "chat",
    "chat/completion",
    "chat/embeddings",
    "chat/rerank",
    "chat/tokens",
    "models",
    "register",
    "launch/LLM/qwen3",
    "running",
    "running/shown",
    "running/shown/replicas",
    "running/shown/logs",
    "running/shown/events",
    "running/shown/requests",
    "running/shown/engine",
    "running/shown/api",
    "downloads",
    "activity",
    "activity/usage",
    "machine",
    "keys",
    "api",
    "settings",
)
#: A paragraph with the role `status` says that something is still loaded.
IS_THERE = """(hash) => location.hash === hash && document.querySelector("main h1") !== null
  && document.querySelector("main p[role=status]") === null"""


def visit(page: Page, name: str) -> None:
    """Go to a page by its address, as a link does, and wait until it shows its data."""
    page.evaluate("(hash) => { location.hash = hash; }", f"#/{name}")
    page.wait_for_function(IS_THERE, arg=f"#/{name}")


def log_in(page: Page, watch: Watch, key: str) -> None:
    """Send a key by the form of the login, which is shown, and wait until it is accepted."""
    watch.expected.append("status of 401")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def look(page: Page, *, theme: str, language: str) -> None:
    """Choose the looks as another tab of the browser does."""
    page.evaluate(
        """([theme, language]) => {
          localStorage["xinference.theme"] = theme;
          localStorage["xinference.language"] = language;
          dispatchEvent(new StorageEvent("storage"));
        }""",
        [theme, language],
    )
    page.wait_for_function(
        "(language) => document.documentElement.lang === language", arg="zh" if language == "zh" else "en"
    )
