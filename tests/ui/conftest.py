"""Chromium, a page that fails its story on each fault, and servers with scripted engines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome
from tests.ui.browser import Watch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
#: Milliseconds in which an element must appear: generous, because several processes share two cores.
PATIENCE = 30_000

Open = Callable[..., tuple["Page", Watch]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="`make test-ui` installs Playwright")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is missing: `apt-get install chromium`, or name the program in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def scripted_home(folder: Path, **settings: str) -> Iterator[ScriptedHome]:
    """A home with a running server, below `folder`; settings are environment variables of the server."""
    weights = write_gguf(HF, "Q8_0", folder / "tiny.gguf")
    (folder / "home").mkdir()
    home = ScriptedHome(folder / "home", free_port(), settings, weights=weights)
    try:
        home.start()
        yield home
    finally:
        home.clean_up()


@pytest.fixture(scope="session")
def home(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedHome]:
    """The server of the stories that leave it as it is, but for models of their own."""
    with scripted_home(tmp_path_factory.mktemp("ui")) as made:
        yield made


@pytest.fixture
def own_home(chromium: Browser, tmp_path: Path) -> Iterator[ScriptedHome]:
    """The server of one story alone."""
    with scripted_home(tmp_path) as made:
        yield made


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Open a page of a server in a browser without cookies; every fault of it fails the test at its end."""
    watches: list[Watch] = []
    with ExitStack() as stack:

        def open_(home: ScriptedHome, path: str = "#/", *, script: str = "", **context: Any) -> tuple[Page, Watch]:
            settings: dict[str, Any] = {"locale": "en-US", "viewport": {"width": 1440, "height": 900}, **context}
            made = chromium.new_context(**settings)
            stack.callback(made.close)
            made.set_default_timeout(PATIENCE)
            page = made.new_page()
            address = path if path.startswith("http") else f"{home.url}/ui/{path}"
            watch = Watch("/".join(address.split("/")[:3]))
            watch.attach(page)
            watches.append(watch)
            if script:
                page.add_init_script(script)
            page.goto(address)
            return page, watch

        yield open_
    assert [fault for watch in watches for fault in watch.unexpected()] == []
