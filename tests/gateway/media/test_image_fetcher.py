"""Images of other machines: from public addresses only, within limits, and nothing else of what they answer."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from typing import Any

import pytest

from tests.gateway.media.image_server import HOST, PNG, PUBLIC, Asked, Handle, Internet, head, http, internet, redirect
from tests.support.cases import in_one_test
from xinference.gateway.media.image_fetcher import Image, ImageFetcher
from xinference.hosts import DomainList
from xinference.https import fetcher
from xinference.https.network import real_network
from xinference.protocol.errors import Refusal

FIELD = "messages[0].content[1].image_url.url"


async def fetched(
    net: Internet, url: str = f"https://{HOST}/a.png", *, allowed: str = "*", max_bytes: int = 1000, seconds: float = 60
) -> Image:
    fetcher = ImageFetcher(DomainList(allowed), max_bytes, seconds, net.network)
    return await fetcher.fetch(fetcher.check(url, FIELD), FIELD)


async def refused(
    answers: Mapping[str, bytes | Handle],
    url: str = f"https://{HOST}/a.png",
    names: Mapping[str, list[str]] | None = None,
    **options: Any,
) -> Refusal:
    """The refusal, whose text has the host and nothing of the answer."""
    async with internet(answers, names) as net:
        with pytest.raises(Refusal) as caught:
            await fetched(net, url, **options)
    refusal = caught.value
    assert (refusal.status, refusal.param) == (400, FIELD)
    assert HOST in refusal.cause and "secret" not in str(refusal)
    return refusal


async def test_an_image_comes_from_the_address_that_was_checked_under_the_hosts_name() -> None:
    async with internet({"/a.png?b=1": http(PNG, "Content-Type: text/plain")}) as net:
        image = await fetched(net, f"https://{HOST}/a.png?b=1#c")
    assert image == Image(PNG, "image/png")
    assert net.connections == [(PUBLIC, 443, HOST)]
    (asked,) = net.requests
    assert asked.headers["Host"] == HOST and asked.headers["Accept-Encoding"] == "identity"
    assert set(asked.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0 pixels", "image/jpeg"),
        (b"GIF89a pixels", "image/gif"),
        (b"RIFF\0\0\0\0WEBP pixels", "image/webp"),
        (b"BM pixels", "image/bmp"),
    ],
)
async def test_the_type_of_an_image_is_that_of_its_bytes(content: bytes, kind: str) -> None:
    async with internet({"/a.png": http(content, "Content-Type: image/png")}) as net:
        assert await fetched(net) == Image(content, kind)


@pytest.mark.parametrize(
    "answer",
    [
        head("Transfer-Encoding: chunked") + b"".join(b"1\r\n%c\r\n" % byte for byte in PNG) + b"0\r\n\r\n",
        head("Connection: close") + PNG,
        head(status="103 Early Hints") + http(PNG),
    ],
    ids=["chunked", "until the end of the connection", "after an early hint"],
)
async def test_every_frame_of_an_answer_is_read(answer: bytes) -> None:
    async with internet({"/a.png": answer}) as net:
        assert (await fetched(net)).content == PNG


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1", "::1", "fe80::1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "168.63.129.16"],
    ],
)
async def test_a_name_with_private_addresses_is_never_connected_to(addresses: list[str]) -> None:
    async with internet({}, {HOST: addresses}) as net:
        with pytest.raises(Refusal) as caught:
            await fetched(net)
    assert caught.value.code == "media_unavailable" and net.connections == []
    missing = await refused({}, names={"other": [PUBLIC]})
    assert missing.cause == caught.value.cause  # which names the network has cannot be told


async def test_of_several_addresses_only_public_ones_are_tried_in_their_order() -> None:
    async with internet({"/a.png": http(PNG)}, {HOST: ["10.0.0.1", PUBLIC, "1.1.1.1"]}) as net:
        await fetched(net)
    assert [address for address, _, _ in net.connections] == [PUBLIC]


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.png", "https://[::1]/a.png", "https://[::ffff:7f00:1]/a.png"])
async def test_an_address_in_place_of_a_name_is_checked_too(url: str) -> None:
    host = url.removeprefix("https://").removesuffix("/a.png").strip("[]")
    async with internet({}, {host: [host]}) as net:
        with pytest.raises(Refusal, match="has no public address"):
            await fetched(net, url)
    assert net.connections == []


@in_one_test(
    "location",
    [
        "https://evil.test/b.png",
        "https://inside.images.test/b.png",
        f"http://{HOST}/b.png",
        "file:///etc/passwd",
        f"https://{HOST}:8443/b.png",
        "//127.0.0.1/b.png",
        "https://secret@images.test/",
    ],
)
async def test_a_redirect_is_checked_as_the_first_address(location: str) -> None:
    names = {HOST: [PUBLIC], "inside.images.test": ["10.0.0.1"], "evil.test": [PUBLIC]}
    async with internet({"/a.png": redirect(location)}, names) as net:
        with pytest.raises(Refusal) as caught:
            await fetched(net, allowed=f"{HOST},*.images.test")
    assert caught.value.code == "media_unavailable"
    assert "evil" not in caught.value.cause and "secret" not in caught.value.cause
    assert len(net.connections) == 1


async def test_an_allowed_redirect_is_followed_from_public_address_to_public_address() -> None:
    answers = {"/a.png": redirect("b?c"), "/b?c": redirect("https://cdn.images.test/d"), "/d": http(PNG)}
    async with internet(answers, {HOST: [PUBLIC], "cdn.images.test": ["1.1.1.1"]}) as net:
        assert (await fetched(net)).content == PNG
    assert net.connections == [(PUBLIC, 443, HOST), (PUBLIC, 443, HOST), ("1.1.1.1", 443, "cdn.images.test")]


async def test_a_name_that_changes_its_address_between_two_redirects_is_checked_again() -> None:
    async def rebind(asked: Asked, writer: asyncio.StreamWriter) -> None:
        net.names[HOST] = ["127.0.0.1"]
        writer.write(redirect("/b"))

    async with internet({"/a.png": rebind, "/b": http(PNG)}) as net:
        with pytest.raises(Refusal, match="has no public address"):
            await fetched(net)
    assert len(net.connections) == 1


async def test_redirects_have_an_end() -> None:
    assert "redirects more than 3 times" in (await refused({"/a.png": redirect("/a.png")})).cause


@in_one_test(
    ("answer", "why"),
    [
        (http(b"secret", status="404 Not Found"), "the status 404"),
        (http(b"", status="304 Not Modified"), "the status 304"),
        (http(PNG + b"x" * 1000), "more than 1000 bytes"),
        (head("Content-Length: 99999999999999"), "more than 1000 bytes"),
        (head("Connection: close") + PNG + b"x" * 1000, "more than 1000 bytes"),
        (head("Transfer-Encoding: chunked") + b"fff\r\n" + PNG + b"x" * 4095, "more than 1000 bytes"),
        (http(gzip.compress(PNG), "Content-Encoding: gzip"), "compressed"),
        (http(PNG, "Content-Encoding: br"), "compressed"),
        (head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", "compressed"),
        (b"SSH-2.0-secret\r\n", "does not answer in HTTP"),
        (head("X: " + "y" * 100_000), "too much beside its content"),
        (head("Transfer-Encoding: chunked") + b"0\r\nX: " + b"y" * 100_000, "too much beside its content"),
        (head("Content-Length: 500") + PNG, "before the end of its answer"),
        (head("Transfer-Encoding: chunked") + b"5\r\nsecre\r\n", "before the end of its answer"),
        (b"", "before the end of its answer"),
        (head("Upgrade: secret", "Connection: upgrade", status="101 Switching Protocols"), "HTTP"),
    ],
)
async def test_an_answer_that_is_no_image_within_the_limits_is_refused(answer: bytes, why: str) -> None:
    refusal = await refused({"/a.png": answer})
    assert refusal.code == "media_unavailable" and why in refusal.cause


@pytest.mark.parametrize(
    "content", [b"", b"<html>secret", b"<svg xmlns=secret>", b"\x00\x00\x00\x1cftypavif", b"RIFF1234WAVE"]
)
async def test_bytes_of_no_known_type_are_refused(content: bytes) -> None:
    assert (await refused({"/a.png": http(content, "Content-Type: image/png")})).code == "invalid_media"


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with internet({"/a.png": http(PNG)}, {"other.test": [PUBLIC, "1.1.1.1"]}) as net:
        with pytest.raises(Refusal, match=r"other\.test cannot be reached by TLS"):
            await fetched(net, "https://other.test/a.png")
    assert net.requests == [] and len(net.connections) == 2


async def _silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head("Content-Length: 500") + PNG)
    await asyncio.sleep(3600)


async def _slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head("Content-Length: 500"))
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.001)


async def test_a_host_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PAUSE_SECONDS", 0.05)
    assert "in time" in (await refused({"/a.png": _silent})).cause


async def test_a_host_that_sends_byte_by_byte_is_given_up() -> None:
    assert "in time" in (await refused({"/a.png": _slow}, seconds=0.2)).cause


@pytest.mark.parametrize(
    "url", [f"http://{HOST}/a", "https://evil.test/a", f"https://u@{HOST}/a", f"https://{HOST}:22/a"]
)
async def test_an_address_that_is_not_allowed_is_not_even_looked_up(url: str) -> None:
    async with internet({}) as net:
        with pytest.raises(Refusal) as caught:
            await fetched(net, url, allowed=HOST)
    assert (caught.value.code, caught.value.param) == ("media_address", FIELD)
    assert net.lookups == []


async def test_a_name_of_this_machine_has_no_address_for_images() -> None:
    assert await real_network().addresses("localhost") == []
