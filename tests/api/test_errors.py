from __future__ import annotations

import json

import pytest

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
