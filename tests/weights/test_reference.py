from __future__ import annotations

import pytest

from xinference.weights.reference import Reference, reference


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("owner/name", Reference(model_id="owner/name")),
        ("owner/name@v1.0", Reference(model_id="owner/name", revision="v1.0")),
        ("owner/name/a/model-Q4_K_M.gguf", Reference(model_id="owner/name", file="a/model-Q4_K_M.gguf")),
        ("owner/name/m.gguf@main", Reference(model_id="owner/name", file="m.gguf", revision="main")),
        ("/models/a", Reference(path="/models/a")),
        ("./folder", Reference(path="./folder")),
        ("~/m.gguf", Reference(path="~/m.gguf")),
        ("model.gguf", Reference(path="model.gguf")),
        ("qwen3", None),
        ("a b", None),
        ("owner/../name", None),
        ("owner/name/other", None),
        ("https://hub/owner/name", None),
        ("", None),
    ],
)
def test_a_name_that_is_no_models_is_a_path_an_id_or_nothing(name: str, what: Reference | None) -> None:
    assert reference(name) == what
