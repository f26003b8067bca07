from __future__ import annotations

import pytest

from tests.support.cases import in_one_test
from xinference.api.app import build_routes
from xinference.gateway.auth.permissions import MODEL_PARTS, Access, Need, required_access
from xinference.gateway.routes import DATA_PATHS

MANAGE = Access(Need.MANAGE)


@in_one_test("path", sorted(DATA_PATHS))
@in_one_test("method", ["POST", "GET", "OPTIONS", "DELETE"])
def test_every_data_path_needs_use_by_any_method(path: str, method: str) -> None:
    assert required_access(method, path) == Access(Need.ASK)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("HEAD", "/health"), ("GET", "/v1/cluster/auth"), ("POST", "/token")]
)
def test_paths_without_a_key_are_open(method: str, path: str) -> None:
    assert required_access(method, path) == Access(Need.NOTHING)


@in_one_test(
    "path",
    [
        "/v1/models",
        "/v1/models/instances",
        "/v1/engines/llama-2-chat",
        "/v1/engines/LLM/llama-2-chat",
        "/v1/model_registrations/LLM",
        "/v1/model_registrations/LLM/llama-2-chat",
        "/v1/models/LLM/llama-2-chat/versions",
        "/openapi.json",
    ],
)
def test_reading_what_there_is_needs_a_key_and_changing_it_needs_manage(path: str) -> None:
    assert required_access("GET", path) == required_access("HEAD", path) == Access(Need.READ)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert required_access(method, path) == MANAGE


@pytest.mark.parametrize("rest", ["", "/events", "/progress", "/replicas", "/engine"])
def test_reading_one_models_state_names_the_model(rest: str) -> None:
    assert required_access("GET", f"/v1/models/a model{rest}") == Access(Need.READ, "a model")
    assert required_access("DELETE", f"/v1/models/m{rest}") == MANAGE


@pytest.mark.parametrize("name", ["org/name", "org/name/file.gguf", "hf.co/org/name:Q4_K_M"])
@pytest.mark.parametrize("prefix", ["", "/anthropic"])
def test_a_name_with_a_slash_is_read_by_the_same_keys_as_another_name(prefix: str, name: str) -> None:
    assert required_access("GET", f"{prefix}/v1/models/{name}") == Access(Need.READ, name)
    assert required_access("DELETE", f"{prefix}/v1/models/{name}") == MANAGE


def test_each_route_below_a_model_is_known_by_its_first_part() -> None:
    below = "/v1/models/{model_uid}/"
    parts = {
        path.removeprefix(below).partition("/")[0] for path in build_routes({}).openapi()["paths"] if below in path
    }
    assert parts and parts <= MODEL_PARTS


def test_aborting_a_request_needs_no_more_than_making_it() -> None:
    assert required_access("POST", "/v1/models/m/requests/r/abort") == Access(Need.READ, "m")


@pytest.mark.parametrize("path", ["/status", "/metrics", "/v1/cluster/info", "/v1/workers"])
def test_what_the_whole_server_does_is_not_for_a_key_of_certain_models(path: str) -> None:
    assert required_access("GET", path) == Access(Need.OVERSEE)


@in_one_test(
    ("method", "path"),
    [
        ("GET", "/v1/models/m/logs"),
        ("GET", "/v1/logs"),
        ("GET", "/v1/models/m/events/more"),
        ("GET", "/v1/models/"),
        ("GET", "//health"),
        ("GET", "/health/"),
        ("POST", "/health"),
        ("GET", "/token"),
        ("GET", "/v1/cache/models"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/clusters"),
        ("GET", "/v1/chat/completions/"),
        ("GET", "/what/comes/next/year"),
        ("GET", "/v1/models/m\n/logs"),
        ("", ""),
    ],
)
def test_everything_else_needs_manage(method: str, path: str) -> None:
    assert required_access(method, path) == MANAGE
