"""Paths that clients ask and that the server does not have are answered in a form that their SDKs show."""

from __future__ import annotations

import json

import pytest

from tests.gateway.harness import CHAT, HandMadeRouter, call, gateway_of
from tests.gateway.test_rate_limits import BEARER, OneKey
from tests.support.cases import in_one_test
from xinference.api.app import build_routes
from xinference.gateway.auth.permissions import Need, required_access
from xinference.gateway.routes import DATA_PATHS
from xinference.gateway.unserved_paths import unserved

UNSERVED = [
    ("POST", "/v1/images/generations", "no image models"),
    ("POST", "/v1/images/edits", "no image models"),
    ("POST", "/v1/images", "no image models"),
    ("POST", "/sdapi/v1/txt2img", "no image models"),
    ("POST", "/v1/audio/speech", "no audio models"),
    ("POST", "/v1/audio/transcriptions", "no audio models"),
    ("POST", "/v1/videos", "no video models"),
    ("POST", "/v1/moderations", "no moderation models"),
    ("GET", "/v1/files", "no store of files"),
    ("DELETE", "/v1/vector_stores/a", "no store of vectors"),
    ("POST", "/v1/batches", "no batches"),
    ("GET", "/v1/skills", "no store of skills"),
    ("POST", "/v1/live/calls", "no realtime sessions"),
    ("GET", "/v1/chat/completions/chatcmpl-1", "no store of chat completions"),
    ("DELETE", "/v1/chat/completions/chatcmpl-1", "no store of chat completions"),
    ("GET", "/v1/chat/completions/chatcmpl-1/messages", "no store of chat completions"),
    ("POST", "/v1/responses/compact", "no compaction"),
    ("POST", "/v1/responses/input_tokens", "/v1/messages/count_tokens"),
    ("POST", "/v1/responses/resp_1/cancel", "no background responses"),
    ("GET", "/v1/responses/resp_1/input_items", "GET /v1/responses/ID"),
    ("POST", "/chat/completions", "The path is /v1/chat/completions: add /v1"),
    ("POST", "/embeddings", "The path is /v1/embeddings: add /v1"),
    ("GET", "/models", "The path is /v1/models: add /v1"),
    ("POST", "/v1/v1/chat/completions", "/v1 is in the base URL twice"),
    ("POST", "/api/chat", "Use OpenAI's API"),
    ("GET", "/api/tags", "Use OpenAI's API"),
    ("POST", "/openai/v1/chat/completions", "The path is /v1/chat/completions"),
    ("POST", "/api/v1/chat/completions", "The path is /v1/chat/completions"),
    ("POST", "/proxy/v1/embeddings", "The path is /v1/embeddings"),
    ("GET", "/openai/v1/models", "The path is /v1/models"),
    ("POST", "/V1/Chat/Completions", "The path is /v1/chat/completions"),
    ("POST", "/openai/deployments/m/chat/completions", "the model in the body"),
    ("POST", "/completion", "Use /v1/completions"),
    ("POST", "/generate", "Use /v1/completions"),
    ("POST", "/v2/chat", "Use /v1/chat/completions"),
    ("POST", "/v2/embed", "Use /v1/embeddings"),
    ("POST", "/v1/complete", "Use /v1/messages"),
    ("GET", "/props", "GET /v1/models/MODEL"),
    ("POST", "/v1beta/models/m:generateContent", "does not have Gemini's API"),
]


@in_one_test(("method", "path", "text"), UNSERVED)
async def test_a_path_that_is_not_served_is_refused_in_openais_form(method: str, path: str, text: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        said = await call(gateway, path, json.dumps(CHAT).encode() if method == "POST" else b"", method=method)
    assert (said.status, said.json["error"]["code"]) == (404, "unknown_path")
    assert text in said.json["error"]["message"] and said.json["detail"] == said.json["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/images/generations", "/chat/completions"])
async def test_a_key_for_models_is_not_told_that_it_may_not_manage(path: str) -> None:
    async with gateway_of(HandMadeRouter(), keys=OneKey()) as gateway:
        assert (await call(gateway, path, b"{}", headers=BEARER)).status == 404
        refused = await call(gateway, path, b"{}")
        assert refused.status == 401 and refused.json["error"]["code"] == "invalid_api_key"


async def test_a_refusal_on_any_path_of_version_1_has_openais_form() -> None:
    async with gateway_of(HandMadeRouter(), keys=OneKey()) as gateway:
        refused = await call(gateway, "/v1/anything", b"{}", headers=BEARER)
    assert refused.status == 403 and refused.json["error"]["code"] == "permission_denied"
    assert refused.json["problem"]["code"] == "permission_denied"


SERVED = [
    "/v1/models",
    "/v1/models/m",
    "/anthropic/v1/models",
    "/v1/cluster/info",
    "/v1/keys",
    "/docs",
    "/",
    "/v1/imagesque",
]


@in_one_test("path", SERVED)
def test_served_paths_are_not_refused(path: str) -> None:
    assert unserved(path) is None
    assert required_access("POST", "/v1/models").need is Need.MANAGE


def test_no_route_of_the_management_api_is_refused() -> None:
    paths = build_routes({}).openapi()["paths"]
    assert paths and not [path for path in paths if unserved(path) is not None]


def test_no_path_of_the_data_path_is_refused() -> None:
    assert not [path for path in DATA_PATHS if path.startswith("/v1/") and unserved(path) is not None]


async def test_batches_of_messages_are_refused_in_anthropics_form() -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        for path in ("/v1/messages/batches", "/anthropic/v1/messages/batches/b"):
            said = await call(gateway, path, method="GET")
            assert (said.status, said.json["type"], said.json["error"]["type"]) == (404, "error", "not_found_error")
            assert "no batches" in said.json["error"]["message"]


@in_one_test(
    ("method", "path", "allow"),
    [
        ("POST", "/metrics", b"GET, HEAD"),
        ("OPTIONS", "/metrics", b"GET, HEAD"),
        ("PUT", "/v1/models", b"GET, HEAD, POST"),
        ("DELETE", "/anthropic/v1/models", b"GET, HEAD"),
        ("PATCH", "/anthropic/v1/models/m", b"GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_for_reading_lacks_is_405_with_allow(method: str, path: str, allow: bytes) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        said = await call(gateway, path, method=method)
    assert (said.status, said.headers[b"allow"]) == (405, allow)
