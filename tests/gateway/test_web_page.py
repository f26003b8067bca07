"""The web page: its files, the headers that limit what it may do, and its size."""

from __future__ import annotations

import gzip
import re
from importlib.resources import files

import pytest

from tests.gateway.harness import HandMadeRouter, Said, call, gateway_of
from tests.gateway.test_rate_limits import OneKey
from tests.support.cases import in_one_test
from xinference.gateway import web_page

DIST = files("xinference.web") / "dist"
FILES = {each.name: each.read_bytes() for each in DIST.iterdir()}
#: A browser loads these before it shows something.
FIRST = ("index.html", "app.js", "index.css", "icon.svg")
#: Addresses in error texts and namespaces of the libraries; the policy permits no request to them.
IN_TEXTS = {b"http://www.w3.org", b"https://svelte.dev", b"https://github.com"}
HTML = {"accept": "text/html,*/*"}


async def get(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Said:
    """The answer of a server that requires keys, to a request without one."""
    async with gateway_of(HandMadeRouter(), keys=OneKey()) as gateway:
        return await call(gateway, path, b"", method=method, headers=headers)


@pytest.mark.parametrize(("path", "headers"), [("/", HTML), ("/ui", {}), ("/ui", HTML)])
async def test_a_browser_is_sent_to_the_page_by_a_relative_address(path: str, headers: dict[str, str]) -> None:
    said = await get(path, headers)
    assert (said.status, said.headers[b"location"]) == (307, b"ui/")


async def test_programs_that_ask_for_the_server_are_answered_as_before() -> None:
    assert (await get("/", {"accept": "application/json"})).status == 401
    assert (await get("/", HTML, "POST")).status == 401


@in_one_test("name", ["", *sorted(FILES)])
async def test_each_file_is_served_without_a_key_and_with_its_limits(name: str) -> None:
    said = await get(f"/ui/{name}")
    assert said.status == 200 and said.body == FILES[name or "index.html"]
    assert int(said.headers[b"content-length"]) == len(said.body)
    policy = said.headers[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
    assert said.headers[b"x-content-type-options"] == b"nosniff"
    kinds = {"js": b"text/javascript; charset=utf-8", "css": b"text/css; charset=utf-8"}
    assert said.headers[b"content-type"] == kinds.get(name.rpartition(".")[2], said.headers[b"content-type"])


async def test_a_file_is_compressed_and_not_sent_twice() -> None:
    said = await get("/ui/app.js", {"accept-encoding": "gzip, br"})
    assert said.headers[b"content-encoding"] == b"gzip" and gzip.decompress(said.body) == FILES["app.js"]
    again = await get("/ui/app.js", {"if-none-match": said.headers[b"etag"].decode()})
    assert (again.status, again.body) == (304, b"")
    head = await get("/ui/app.js", method="HEAD")
    assert head.status == 200 and head.body == b"" and head.headers[b"content-length"] != b"0"


@in_one_test(
    "path", ["/ui/nothing.js", "/ui/../app.js", "/ui/%2e%2e/x", "/ui/dist/app.js", "/ui/app.js/x", "/ui/\0", "/uix"]
)
async def test_no_other_file_is_served(path: str) -> None:
    assert (await get(path)).status in (401, 404)


async def test_the_page_is_only_read() -> None:
    refused = await get("/ui/", method="POST")
    assert (refused.status, refused.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_an_installation_without_a_built_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_page, "_files", dict)
    missing = await get("/ui/")
    assert missing.status == 404 and "make ui" in missing.json["problem"]["hint"]


def test_the_page_has_its_files_and_no_address_of_another_server() -> None:
    named = re.findall(r'(?:src|href)="\./([^"]+)"', FILES["index.html"].decode())
    assert named and set(named) <= FILES.keys()
    for name, body in FILES.items():
        addresses = set(re.findall(rb"https?://[\w.-]+", body)) - IN_TEXTS
        assert not addresses, (name, addresses)
    assert b"<script>" not in FILES["index.html"] and b"style=" not in FILES["index.html"]


def test_the_page_stays_small() -> None:
    sizes = {name: len(gzip.compress(body, 9)) for name, body in FILES.items()}
    assert sum(sizes[name] for name in FIRST) <= 60_000
    assert sum(sizes.values()) <= 250_000
