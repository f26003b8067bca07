from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of
from xinference.gateway.http.request_body import check_content_type, decompressed
from xinference.protocol.errors import Refusal, openai_error

TEXT = b'{"model": "m"}' * 100


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("identity", TEXT),
    ],
)
def test_a_compressed_body_is_decoded(encoding: str, body: bytes) -> None:
    assert decompressed(body, {b"content-encoding": encoding.encode()}, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("zstd", TEXT, 415),
        ("br", TEXT, 415),
        ("gzip, gzip", TEXT, 415),
        ("gzip", TEXT, 400),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"more", 400),
        ("gzip", gzip.compress(bytes(10**7), mtime=0), 413),
    ],
)
def test_a_body_that_cannot_be_decoded_is_refused(encoding: str, body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decompressed(body, {b"content-encoding": encoding.encode()}, len(TEXT))
    assert caught.value.status == status
    assert status != 415 or encoding in str(caught.value)


async def test_the_gateway_reads_a_compressed_request() -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        body, headers = gzip.compress(json.dumps(CHAT).encode()), {"content-encoding": "gzip"}
        said = await call(gateway, "/v1/chat/completions", body, headers=headers)
        assert (said.status, said.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat//completions//"])
async def test_empty_parts_of_a_path_are_passed_over(path: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        said = await call(gateway, path, json.dumps(CHAT).encode())
        assert said.json["error"]["code"] == "model_not_found"
        assert (await call(gateway, "/v1/models/", method="GET")).json["object"] == "list"
        assert (await call(gateway, "/v1/cluster/info/", method="GET")).body == b"management GET /v1/cluster/info"


def test_a_wrong_content_type_is_told_with_the_header_to_add() -> None:
    with pytest.raises(Refusal, match="Add the header Content-Type: application/json") as caught:
        check_content_type({b"content-type": b"application/x-www-form-urlencoded"})
    assert caught.value.status == 415


def test_a_limit_has_openais_type() -> None:
    assert json.loads(openai_error(429, "m", "c"))["error"]["type"] == "rate_limit_error"
