"""What no route is shown: values that JSON has not, and text that no file or row can hold."""

from __future__ import annotations

import httpx2
import pytest

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model_name": "m", "n_ctx": NaN}', "NaN is not a JSON number"),
        (b'{"model_name": "m", "n_ctx": -Infinity}', "-Infinity is not"),
        (b'{"model_name": "m", "n_ctx": 1e999}', "too large"),
        (b'{"model_name": "m", "n_ctx": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"model_name": "m", "x": [{"a\\u0000": 1}]}', "NUL"),
        (b'{"model_name": "m", "model_path": "/tmp/\\u0000"}', "NUL"),
        (b'{"model_name": "\\ud800"}', "half of a surrogate"),
        (b'{"model_name": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b'{"model_name": "\xff"}', "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "the body must be an object"),
        (b"", "has no body"),
    ],
    ids=str,
)
async def test_a_body_that_is_no_json_is_a_400_that_says_why(empty: httpx2.AsyncClient, body: bytes, said: str) -> None:
    answer = await empty.post("/v1/models", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert said.lower() in answer.json()["detail"].lower() and answer.json()["problem"]["code"]


@pytest.mark.parametrize("path", ["/v1/models/%00", "/v1/models/instances?model_uid=a%00b", "/v1/engines/a%00"])
async def test_a_nul_in_the_path_or_the_query_is_refused(empty: httpx2.AsyncClient, path: str) -> None:
    answer = await empty.get(path)
    assert (answer.status_code, "NUL" in answer.json()["detail"]) == (400, True)


async def test_a_body_without_an_end_is_cut_off(empty: httpx2.AsyncClient) -> None:
    answer = await empty.post("/v1/models", content=b" " * (9 << 20), headers=JSON)
    assert (answer.status_code, answer.json()["problem"]["code"]) == (413, "request_too_large")


async def test_a_body_of_another_type_is_a_415_that_names_the_right_one(empty: httpx2.AsyncClient) -> None:
    answer = await empty.post("/v1/models", content=b"model_name=m", headers={"content-type": "text/plain"})
    assert (answer.status_code, "application/json" in answer.json()["detail"]) == (415, True)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
async def test_a_compressed_body_is_a_415_that_names_the_encoding(empty: httpx2.AsyncClient, encoding: str) -> None:
    headers = JSON | {"content-encoding": encoding}
    answer = await empty.post("/v1/models", content=b"\x1f\x8b", headers=headers)
    assert (answer.status_code, encoding in answer.json()["detail"]) == (415, True)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a/b"])
async def test_a_name_is_never_a_path(empty: httpx2.AsyncClient, name: str) -> None:
    for path in (f"/v1/models/{name}/logs", f"/v1/engines/{name}", f"/v1/model_registrations/LLM/{name}"):
        answer = await empty.get(path)
        offline = answer.status_code == 503 and path == "/v1/engines/a/b"  # a repository's id, and no hub is asked
        assert answer.status_code in (400, 404) or offline, (path, answer.text)
        assert answer.json()["detail"] and answer.json()["problem"]["code"]
    for version in (name, f"{name}--7B--ggufv2--Q4_K_M"):
        answer = await empty.delete("/v1/cache/models", params={"model_version": version})
        assert answer.status_code == 404
