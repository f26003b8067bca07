"""A catalog is fetched from an address or a package within limits, and is the one that was pinned."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.catalog.catalogs import catalog
from tests.gateway.media.image_server import HOST, Asked, Handle, Internet, head, http, internet, redirect
from tests.hubs import wheels
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.errors import Problem
from xinference.https import fetcher
from xinference.hubs import catalog_source
from xinference.hubs.catalog_source import CatalogSource, fetch_catalog, read_source

TEXT = catalog()
SHA = hashlib.sha256(TEXT).hexdigest()
URL = f"https://{HOST}/catalog.json"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


async def fetched(answer: bytes | Handle, settings: Settings, url: str = URL, sha256: str = SHA) -> bytes:
    async with internet({"/catalog.json": answer}) as net:
        return await fetch_catalog(read_source(url, sha256), settings, net.network)


async def test_a_catalog_is_fetched_from_an_address_with_its_hash(settings: Settings) -> None:
    assert await fetched(http(TEXT), settings) == TEXT
    assert await fetched(http(TEXT), settings, f"{URL}#sha256={SHA}", "") == TEXT


async def stall(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head("Content-Length: 100") + b"{")
    await asyncio.Event().wait()


async def trickle(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head("Content-Length: 100000"))
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(TEXT + b" "), "its sha256 is"),
        (http(TEXT)[:-20], "closed the connection"),
        (http(TEXT, status="404 Not Found"), "status 404"),
        (head(f"Content-Length: {9 << 20}"), "more than 8388608 bytes"),
        (head() + b"x" * (9 << 20), "more than 8388608 bytes"),
        (http(TEXT, "Content-Encoding: gzip"), "compressed"),
        (redirect("http://127.0.0.1/catalog.json"), "does not allow"),
        (redirect("file:///etc/passwd"), "does not allow"),
        (redirect("https://inside.test/catalog.json"), "no public address"),
        (redirect(URL), "redirects more than 3 times"),
        (stall, "in time"),
    ],
    ids=[
        "other hash", "cut", "not found", "said to be long", "long", "compressed", "to http", "to a file",
        "to a private address", "in a circle", "stalls",
    ],
)  # fmt: skip
async def test_another_answer_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: bytes | Handle, reason: str
) -> None:
    if answer is stall:
        monkeypatch.setattr(fetcher, "PAUSE_SECONDS", 0.05)
    with pytest.raises(Problem) as refused:
        await fetched(answer, settings)
    assert reason in refused.value.cause and refused.value.code in ("bad_catalog", "hub_unreachable")


async def test_a_server_that_trickles_is_given_up(settings: Settings) -> None:
    with pytest.raises(Problem, match="in time"):
        await fetched(trickle, replace(settings, hub_seconds=0.2))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1"])
async def test_a_name_with_a_private_address_is_not_connected_to(settings: Settings, address: str) -> None:
    net: Internet
    async with internet({}, {HOST: [address]}) as net:
        with pytest.raises(Problem, match="no public address"):
            await fetch_catalog(read_source(URL, SHA), settings, net.network)
    assert net.connections == []


@pytest.mark.parametrize(
    "text", ["http://example.com/c", "ftp://x/c", "file:///etc/passwd", "https://u:p@example.com/c"]
)
async def test_an_address_without_https_is_refused(settings: Settings, text: str) -> None:
    with pytest.raises(Problem) as refused:
        await fetch_catalog(CatalogSource(text, SHA), settings)
    assert refused.value.code == "no_catalog_source"


@in_one_test("text", ["", "-r x", "a b", "../x", "name==", "name>=1", "--index-url=x", "name @ https:x", URL])
def test_a_source_of_another_form_or_an_address_without_a_hash_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        read_source(text, None)
    assert refused.value.code == "no_catalog_source"


def test_a_hash_of_another_form_is_refused() -> None:
    with pytest.raises(Problem, match="64 hexadecimal"):
        read_source(URL, "abc")


async def test_nothing_is_fetched_offline(settings: Settings) -> None:
    for source in (read_source(URL, SHA), read_source("some-package", None)):
        with pytest.raises(Problem) as refused:
            await fetch_catalog(source, replace(settings, offline=True))
        assert refused.value.code == "offline"


# -- packages --------------------------------------------------------------------------------------------------


def wheel(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A wheel of tiny-weights 1.0 with these members, compressed."""
    buffer = io.BytesIO(wheels.build_wheel({}))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def lying(content: bytes) -> bytes:
    """A wheel whose catalog has more bytes than the archive says."""
    data = wheel(("tiny_weights/catalog.json", content))
    size = len(content).to_bytes(4, "little")
    assert data.count(size) >= 2
    return data.replace(size, (100).to_bytes(4, "little"))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[wheels.Index]:
    for name in [n for n in os.environ if n.startswith("PIP_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    with wheels.serve(wheel(("tiny_weights/catalog.json", TEXT), ("tiny_weights/__init__.py", b""))) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


@pytest.mark.process
async def test_a_catalog_is_fetched_from_a_package(package: wheels.Index, settings: Settings) -> None:
    assert await fetch_catalog(read_source("tiny-weights", None), settings) == TEXT
    digest = wheels.sha256(package.wheel)
    assert await fetch_catalog(read_source("tiny-weights==1.0", digest), settings) == TEXT
    with pytest.raises(Problem) as refused:
        await fetch_catalog(read_source("tiny-weights", SHA), settings)
    assert refused.value.code == "hash_mismatch"


@pytest.mark.process
async def test_an_index_that_stalls_is_given_up(package: wheels.Index, settings: Settings) -> None:
    package.hold_after = 100
    with pytest.raises(Problem) as refused:
        await fetch_catalog(read_source("tiny-weights", None), replace(settings, hub_seconds=4.0))
    assert refused.value.code == "hub_timeout"


@pytest.mark.process
async def test_a_huge_wheel_is_not_fetched_to_its_end(
    package: wheels.Index, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_source, "MAX_WHEEL", 100_000)
    package.wheel = wheels.build_wheel({"tiny_weights/catalog.json": wheels.WEIGHTS})
    package.hold_after = 1_000_000
    with pytest.raises(Problem, match="more than 100000 bytes"):
        await fetch_catalog(read_source("tiny-weights", None), settings)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "can't be read"),
        (wheel(("tiny_weights/catalog.json", TEXT))[:-30], "can't be read"),
        (wheel(), "0 members"),
        (wheel(("a/catalog.json", TEXT), ("b/catalog.json", TEXT)), "2 members"),
        (wheel(("a/deep/catalog.json", TEXT)), "0 members"),
        (wheel((link("a/catalog.json"), b"/etc/passwd")), "link"),
        (wheel(("a/catalog.json", b"\0" * (9 << 20))), "may have 8388608"),
        (lying(b" " * 50_000), "can't be read"),
        (wheel(("../../../tmp/x", b"x"), ("/etc/x", b"x")), "0 members"),
    ],
    ids=["no zip", "cut", "none", "two", "deep", "link", "long", "longer than it says", "outside"],
)
def test_a_hostile_wheel_is_refused_and_nothing_of_it_is_written(tmp_path: Path, content: bytes, reason: str) -> None:
    path = wheels.write(tmp_path, content)
    with pytest.raises(Problem) as refused:
        catalog_source._read_wheel(tmp_path, "tiny-weights")
    assert refused.value.code == "bad_catalog" and reason in refused.value.cause
    assert list(tmp_path.rglob("*")) == [path]
