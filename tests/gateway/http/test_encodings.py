from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
import zlib
from typing import Any

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of
from tests.support.cases import in_one_test
from xinference.gateway.http.content_encodings import WINDOW_LOG, decompressed
from xinference.gateway.http.request_body import check_content_type
from xinference.protocol.errors import Refusal, openai_error

TEXT = b'{"model": "m"}' * 100
zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def raw_deflate(text: bytes) -> bytes:
    """Without zlib's head."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(text) + encoder.flush()


def wide(text: bytes) -> bytes:
    """zstd that needs more memory than its content encoding allows."""
    parameter = zstd.CompressionParameter
    encoder = zstd.ZstdCompressor(options={parameter.window_log: WINDOW_LOG + 1, parameter.content_size_flag: False})
    return bytes(encoder.compress(text) + encoder.flush())


@in_one_test(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:9], mtime=0) + gzip.compress(TEXT[9:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("zstd", zstd.compress(TEXT)),
        (" Zstd", zstd.compress(TEXT, 19)),
        ("identity", TEXT),
    ],
)
def test_a_compressed_body_is_decoded(encoding: str, body: bytes) -> None:
    assert decompressed(body, {b"content-encoding": encoding.encode()}, len(TEXT)) == TEXT


@in_one_test(
    ("encoding", "body", "status"),
    [
        ("br", TEXT, 415),
        ("compress", TEXT, 415),
        ("gzip, zstd", TEXT, 415),
        ("gzip, gzip", TEXT, 415),
        ("gzip", TEXT, 400),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"more", 400),
        ("gzip", gzip.compress(TEXT, mtime=0) + gzip.compress(b"more", mtime=0)[:-9], 413),
        ("gzip", gzip.compress(b"", mtime=0) * 17, 400),
        ("gzip", gzip.compress(bytes(10**6), mtime=0), 413),
        ("deflate", TEXT, 400),
        ("deflate", zlib.compress(bytes(10**6)), 413),
        ("deflate", b"", 400),
        ("zstd", TEXT, 400),
        ("zstd", b"", 400),
        ("zstd", zstd.compress(TEXT)[:-3], 400),
        ("zstd", zstd.compress(TEXT) + b"more", 400),
        ("zstd", zstd.compress(bytes(10**6)), 413),
        ("zstd", zstd.compress(bytes(len(TEXT) + 1)), 413),
        ("zstd", wide(TEXT), 400),
    ],
)
def test_a_body_that_cannot_be_decoded_is_refused(encoding: str, body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decompressed(body, {b"content-encoding": encoding.encode()}, len(TEXT))
    assert caught.value.status == status
    if status == 415:
        assert encoding in str(caught.value) and "gzip, deflate or zstd" in str(caught.value)
        assert dict(caught.value.headers)[b"accept-encoding"] == b"gzip, deflate, zstd"


@pytest.mark.process
def test_the_library_of_zstd_is_loaded_for_the_first_body_that_needs_it() -> None:
    program = "import sys, xinference.gateway.app; sys.exit('backports.zstd' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_the_gateway_reads_a_compressed_request(encoding: str, compress: Any) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        body, headers = compress(json.dumps(CHAT).encode()), {"content-encoding": encoding}
        said = await call(gateway, "/v1/chat/completions", body, headers=headers)
        assert (said.status, said.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_byte_order_mark_before_a_body_is_passed_over(path: str) -> None:
    body = json.dumps(CHAT | {"input": "hi", "max_tokens": 1}).encode("utf-8-sig")
    async with gateway_of(HandMadeRouter()) as gateway:
        said = await call(gateway, path, body)
        assert said.status == 404, said.body  # the model


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat//completions//"])
async def test_empty_parts_of_a_path_are_passed_over(path: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        said = await call(gateway, path, json.dumps(CHAT).encode())
        assert said.json["error"]["code"] == "model_not_found"
        assert (await call(gateway, "/v1/models/", method="GET")).json["object"] == "list"
        assert (await call(gateway, "/v1/cluster/info/", method="GET")).body == b"management GET /v1/cluster/info"


def test_a_wrong_content_type_is_told_with_the_header_to_add() -> None:
    with pytest.raises(Refusal, match="for curl: -H 'Content-Type: application/json'") as caught:
        check_content_type({b"content-type": b"application/x-www-form-urlencoded"})
    assert caught.value.status == 415


def test_a_limit_has_openais_type() -> None:
    assert json.loads(openai_error(429, "m", "c"))["error"]["type"] == "rate_limit_error"
