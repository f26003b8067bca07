"""Stories behind nginx with TLS and a path: with the lines of docs/web-page.md, and with a proxy that buffers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open, scripted_home
from tests.ui.pages import log_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.skipif(
        NGINX is None or shutil.which("openssl") is None,
        reason="nginx or openssl is missing: apt-get install nginx-light openssl",
    ),
]
DOCS = Path(__file__).parents[2] / "docs" / "web-page.md"
SERVER = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    {location}
  }}
}}
"""
#: Nothing passes before 256 KiB have come: a proxy in front of the user's own.
BUFFERS = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 64k; proxy_buffers 4 64k;"
Proxied = Callable[..., tuple[ScriptedHome, str, str]]


def documented_location(upstream: int) -> str:
    """The lines of the documentation for nginx, for a server on another port."""
    found = re.search(r"^location /ai/ \{.*?^\}$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert "127.0.0.1:9997" in found[0]
    return found[0].replace("127.0.0.1:9997", f"127.0.0.1:{upstream}").replace("/ai/", "/a/b/", 1)


@contextmanager
def nginx(folder: Path, port: int, location: str) -> Iterator[None]:
    folder.mkdir()
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*certificate, "-days", "2", "-subj", "/CN=127.0.0.1"], cwd=folder, check=True, capture_output=True)
    (folder / "nginx.conf").write_text(SERVER.format(port=port, location=location))
    assert NGINX is not None
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"], stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def proxied(chromium: Browser, tmp_path: Path) -> Iterator[Proxied]:
    """Start a server with a key behind nginx; the server, the address of the page, and the key."""
    with ExitStack() as stack:

        def start(*, buffers: bool = False) -> tuple[ScriptedHome, str, str]:
            port = free_port()
            home = stack.enter_context(scripted_home(tmp_path, XINFERENCE_ALLOWED_ORIGINS=f"https://127.0.0.1:{port}"))
            assert home.post_launch("first").status_code == 200
            created = home.cli("keys", "create", "--name", "owner", "--scope", "use", "--scope", "manage")
            assert created.returncode == 0, created.stderr
            key = re.search(r"sk-\S+", created.stdout)
            assert key is not None, created.stdout
            location = documented_location(home.port)
            if buffers:
                location = location.replace("proxy_buffering off;", BUFFERS)
            stack.enter_context(nginx(tmp_path / "nginx", port, location))
            address = f"https://127.0.0.1:{port}/a/b/"
            until("nginx answers", lambda: _status(address) == 200)
            return home, f"{address}ui/", key[0]

        yield start


def _status(address: str) -> int | None:
    try:
        return httpx2.get(f"{address}health", verify=False, timeout=5).status_code
    except httpx2.TransportError:
        return None


def launch(home: ScriptedHome, key: str, uid: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx2.post(f"{home.url}/v1/models", json=home.request(uid), headers=headers, timeout=90)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("buffers", [False, True])
def test_the_page_works_behind_a_proxy_with_tls_and_a_path(proxied: Proxied, open_page: Open, buffers: bool) -> None:
    home, address, key = proxied(buffers=buffers)
    page, watch = open_page(home, address, ignore_https_errors=True)
    log_in(page, watch, key)
    page.get_by_role("link", name="Running").click()
    page.get_by_role("heading", name="Running models").wait_for()  # the page before it has links to the model, too
    page.get_by_role("link", name="first", exact=True).wait_for()
    [cookie] = page.context.cookies()
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    launch(home, key, "second")
    page.get_by_role("link", name="second", exact=True).wait_for()
    assert page.get_by_text("Updates every 5 s").count() == int(buffers)
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("word word word word word").wait_for()
    page.get_by_role("link", name="API", exact=True).click()
    page.get_by_text(f"{address.removesuffix('ui/')}v1").first.wait_for()
