from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from xinference.api.app import build_routes
from xinference.api.errors import problem_response
from xinference.error_codes import Code
from xinference.errors import Problem


@pytest.mark.parametrize("path", ["/v1/models/none", "/v1/images/generations", "/v1/audio/speech", "/v1/files"])
def test_an_error_on_a_path_of_openai_has_openais_form_too(path: str) -> None:
    answer = json.loads(bytes(problem_response(Problem(Code.MODEL_NOT_FOUND, "There is none."), path).body))
    assert answer["error"]["message"] == answer["detail"] and answer["error"]["code"] == "model_not_found"


def test_another_error_has_the_form_of_management_alone() -> None:
    answer = json.loads(bytes(problem_response(Problem(Code.MODEL_NOT_FOUND, "There is none."), "/v1/keys").body))
    assert answer.keys() == {"detail", "problem"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/keys", "DELETE, GET, HEAD, POST"),
        ("POST", "/v1/keys/k", "DELETE, PATCH"),
        ("DELETE", "/v1/models/m/reload", "GET, HEAD, POST"),
        ("TRACE", "/v1/usage", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_answered_with_all_methods_of_the_path(method: str, path: str, allow: str) -> None:
    answer = TestClient(build_routes({})).request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["problem"]["code"] == "method_not_allowed" and allow in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/models/org/name", "/v1/models/org%2Fname", "/v1/models/org/name/files"])
def test_a_model_whose_name_has_a_slash_is_an_unknown_model(method: str, path: str) -> None:
    answer = TestClient(build_routes({})).request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "There is no running model 'org/name" in answer.json()["error"]["message"]
