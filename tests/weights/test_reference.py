from __future__ import annotations

from tests.support.cases import in_one_test
from xinference.weights.reference import Reference, reference


@in_one_test(
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
        ("owner/name:Q8_0", Reference(model_id="owner/name", quantization="Q8_0")),
        ("owner/name:latest", Reference(model_id="owner/name")),
        ("owner/name@v1:Q8_0", Reference(model_id="owner/name", revision="v1", quantization="Q8_0")),
        ("hf.co/owner/name:Q4_K_M", Reference(model_id="owner/name", quantization="Q4_K_M", hub="huggingface")),
        ("hf://owner/name", Reference(model_id="owner/name", hub="huggingface")),
        ("https://huggingface.co/owner/name", Reference(model_id="owner/name", hub="huggingface")),
        ("https://hf-mirror.com/owner/name", Reference(model_id="owner/name", hub="huggingface")),
        ("https://huggingface.co/owner/name/", Reference(model_id="owner/name", hub="huggingface")),
        ("https://huggingface.co/owner/name/tree/main", Reference(model_id="owner/name", hub="huggingface")),
        ("huggingface.co/owner/name/tree/v2", Reference(model_id="owner/name", revision="v2", hub="huggingface")),
        (
            "https://huggingface.co/owner/name/resolve/main/a/m.gguf?download=true",
            Reference(model_id="owner/name", file="a/m.gguf", hub="huggingface"),
        ),
        (
            "https://huggingface.co/owner/name/blob/v2/m.gguf",
            Reference(model_id="owner/name", file="m.gguf", revision="v2", hub="huggingface"),
        ),
        ("https://modelscope.cn/models/owner/name", Reference(model_id="owner/name", hub="modelscope")),
        ("https://huggingface.co/owner", None),
        ("https://huggingface.co/owner/../name", None),
        ("file:///models/a%20b.gguf", Reference(path="/models/a b.gguf")),
        ("file://localhost/models/a.gguf", Reference(path="/models/a.gguf")),
        ("", None),
    ],
)
def test_a_name_that_is_no_models_is_a_path_an_id_or_nothing(name: str, what: Reference | None) -> None:
    assert reference(name) == what
