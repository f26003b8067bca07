"""A hub that answers without end, or with more than any list has, is refused with the limit, and takes no memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import httpx2
import pytest

from tests.fakes.hub.loopback import LoopbackHub
from tests.hubs.loopback_fetch import COMMIT, Fetching
from xinference.hubs.transfer import bounded_answer
from xinference.hubs.transfer.bounded_answer import Allowance, AnswerTooLarge, read_error, read_list

LIMIT = 1 << 20
#: What a hub may have sent until the client closes the connection: the limit, and what the buffers of sockets hold.
BUFFERED = 16 << 20


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_answer, "MAX_LIST_BYTES", LIMIT)
    monkeypatch.setattr(bounded_answer, "MAX_LIST_ANSWERS", 20)
    monkeypatch.setattr("xinference.hubs.repositories.repository.MAX_LISTED_FILES", 5000)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)


def whole(body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Sends one answer of the APIs."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

    return send


def listing(name: str, files: int, kind: str = "blob") -> bytes:
    """The hub's answer with so many files."""
    if name == "huggingface":
        return json.dumps(
            {"sha": COMMIT, "siblings": [{"rfilename": f"f{n}", "size": 1} for n in range(files)]}
        ).encode()
    entries = [{"Path": f"d{n}", "Type": kind, "Size": 1} for n in range(files)]
    return json.dumps({"Code": 200, "Data": {"Files": entries}}).encode()


def test_a_list_without_end_is_refused_at_its_limit(fetching: Fetching, server: LoopbackHub) -> None:
    sent = 0

    def without_end(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        with suppress(OSError):
            while sent < 64 * LIMIT:
                handler.wfile.write(b" " * 65536)
                sent += 65536

    server.odd_handler = without_end
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert problem.code == "hub_unreachable" and "more than 1,048,576 bytes" in problem.cause
    assert sent < LIMIT + BUFFERED


def test_a_compressed_list_is_counted_by_its_bytes_after_decompression(fetching: Fetching, server: LoopbackHub) -> None:
    server.odd_handler = whole(gzip.compress(b" " * (64 * LIMIT)), Content_Encoding="gzip")
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert problem.code == "hub_unreachable" and "more than 1,048,576 bytes" in problem.cause


def test_a_list_with_too_many_files_is_refused(
    fetching: Fetching, server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinference.hubs.repositories.repository.MAX_LISTED_FILES", 1000)
    server.odd_handler = whole(listing(fetching.name, 1001))
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert problem.code == "hub_unreachable" and "more than 1,000 files" in problem.cause


def test_folders_without_end_are_refused_after_the_last_permitted_page(
    fetching: Fetching, server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fetching.name != "modelscope":
        pytest.skip("only ModelScope lists a large repository folder by folder")
    monkeypatch.setattr(bounded_answer, "MAX_LIST_BYTES", 64 * LIMIT)
    server.odd_handler = whole(listing(fetching.name, 3000, "tree"))
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert problem.code == "hub_unreachable" and "more than 20 pages" in problem.cause


def test_a_hub_is_asked_for_the_list_and_for_nothing_else(fetching: Fetching, server: LoopbackHub) -> None:
    fetching.serve({"tiny.bin": b"weights"})
    fetching(fetching.version("tiny.bin"))
    asked = [path for _, path, _ in server.counters.requests if path.startswith("/api/") and "FilePath" not in path]
    assert len(asked) == 1 and ("/revision/main?blobs=true" in asked[0] or "/repo/files?" in asked[0])


def test_redirects_without_end_are_refused(fetching: Fetching, server: LoopbackHub) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.odd_handler = redirect
    assert fetching.problem(fetching.version("tiny.bin")).code == "hub_unreachable"


def test_a_list_that_takes_too_long_is_refused() -> None:
    times = iter([0.0, 1.0, 61.0])
    allowance = Allowance(lambda: next(times))
    allowance.take(1)
    with pytest.raises(AnswerTooLarge, match="60 s"):
        allowance.take(1)


def test_a_compression_that_was_not_requested_is_refused() -> None:
    answer = httpx2.Response(200, headers={"Content-Encoding": "zstd"}, stream=httpx2.ByteStream(b""))
    with pytest.raises(AnswerTooLarge, match="zstd"):
        read_list(answer, Allowance())


def test_only_the_beginning_of_an_errors_body_is_read() -> None:
    class Body(httpx2.SyncByteStream):
        sent = 0

        def __iter__(self) -> Iterator[bytes]:
            while True:
                self.sent += 65536
                yield b"x" * 65536

    body = Body()
    request = httpx2.Request("GET", "http://hub.example.org/file")
    answer = httpx2.Response(503, headers={"Content-Encoding": "gzip"}, stream=body, request=request)
    assert len(read_error(answer).content) == bounded_answer.MAX_ERROR_BYTES and body.sent < 1 << 20
