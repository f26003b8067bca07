from __future__ import annotations

import pytest

from tests.support.cases import in_one_test
from xinference.errors import Problem
from xinference.weights.gguf_models import GgufModel, choose_model, default_model, gguf_models, quantization_in

FILES = {
    "README.md": 1,
    "m-Q4_K_M.gguf": 40,
    "Q8_0/m-Q8_0-00001-of-00002.gguf": 50,
    "Q8_0/m-Q8_0-00002-of-00002.gguf": 30,
    "m-F16-00001-of-00002.gguf": 99,
    "mmproj-m-f16.gguf": 7,
}


def test_parts_are_one_model_and_projectors_and_torn_models_are_none() -> None:
    assert gguf_models(FILES) == [
        GgufModel("Q8_0", ("Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"), 80),
        GgufModel("Q4_K_M", ("m-Q4_K_M.gguf",), 40),
    ]


@in_one_test(
    ("name", "quantization"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b-chat.Q2_K.gguf", "Q2_K"),
        ("model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("model-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("qwen-q5_k_m.gguf", "q5_k_m"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "fp16"),
        ("model.BF16.gguf", "BF16"),
        ("IQ4_NL/model.gguf", "IQ4_NL"),
        ("Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("model.gguf", None),
        ("FAQ4_0x.gguf", None),
    ],
)
def test_the_quantization_is_read_in_the_name_or_the_folder(name: str, quantization: str | None) -> None:
    assert quantization_in(name) == quantization


def test_one_model_needs_no_choice_and_a_quantization_chooses_whatever_its_case() -> None:
    models = gguf_models(FILES)
    assert choose_model(models[1:], "r", None, None) is models[1]
    assert choose_model(models, "r", "q8_0", None) is models[0]
    assert choose_model(models, "r", None, "Q8_0/m-Q8_0-00002-of-00002.gguf") is models[0]
    unnamed = GgufModel(None, ("model.gguf",), 1)
    assert choose_model([unnamed], "r", "Q4_K_M", None) is unnamed


@pytest.mark.parametrize(
    ("quantization", "file", "code", "hint"),
    [
        ("Q2_K", None, "unknown_model", "It has Q8_0, Q4_K_M"),
        (None, "m-F16-00001-of-00002.gguf", "model_path_not_found", "all parts into the same folder"),
        (None, "other.gguf", "unknown_model", "files are: Q8_0/m-Q8_0-00001-of-00002.gguf, m-Q4_K_M.gguf"),
    ],
)
def test_what_does_not_decide_is_asked_for_with_the_choices(
    quantization: str | None, file: str | None, code: str, hint: str
) -> None:
    with pytest.raises(Problem) as caught:
        choose_model(gguf_models(FILES), "r", quantization, file)
    assert (caught.value.code, caught.value.status) == (code, 400) and hint in str(caught.value.hint)


def test_two_models_of_one_quantization_are_told_apart_by_their_files() -> None:
    models = gguf_models({"a-Q4_0.gguf": 1, "b-Q4_0.gguf": 1})
    for quantization in (None, "Q4_0"):
        with pytest.raises(Problem, match="several models") as caught:
            choose_model(models, "r", quantization, None)
        assert "a-Q4_0.gguf, b-Q4_0.gguf" in str(caught.value.hint)


GIB = 1024**3
SIZES = {"m-Q2_K.gguf": 3 * GIB, "m-Q3_K_M.gguf": 4 * GIB, "m-Q5_K_M.gguf": 6 * GIB, "m-Q8_0.gguf": 9 * GIB}


@in_one_test(
    ("files", "usable", "quantization", "why"),
    [
        (FILES, None, "Q4_K_M", "the usual one; others: Q8_0 (-q)"),
        (SIZES, None, "Q5_K_M", "the nearest to Q4_K_M; others: Q3_K_M, Q8_0, Q2_K (-q)"),
        (SIZES, 5 * GIB, "Q3_K_M", "Q5_K_M (6.0 GiB) does not fit in 5.0 GiB; others: Q5_K_M, Q8_0, Q2_K (-q)"),
        (SIZES, 3 * GIB, "Q2_K", "Q5_K_M (6.0 GiB) does not fit in 3.0 GiB; others: Q5_K_M, Q3_K_M, Q8_0 (-q)"),
        (SIZES, 1 * GIB, "Q5_K_M", "the nearest to Q4_K_M; others: Q3_K_M, Q8_0, Q2_K (-q)"),
        ({**SIZES, "m-imatrix.gguf": 1}, None, "Q5_K_M", "the nearest to Q4_K_M; others: Q3_K_M, Q8_0, Q2_K (-q)"),
    ],
)
def test_without_a_quantization_the_nearest_to_the_usual_one_that_fits_is_taken(
    files: dict[str, int], usable: int | None, quantization: str, why: str
) -> None:
    default = default_model(gguf_models(files), usable)
    assert default is not None and default.model.quantization == quantization
    assert default.reason == f"quantization {quantization}: {why}"


@pytest.mark.parametrize(
    "files", [{"a-Q4_0.gguf": 1, "b-Q8_0.gguf": 1}, {"a-Q4_0.gguf": 1}, {"a.gguf": 1, "b.gguf": 1}]
)
def test_different_models_are_no_quantizations_of_one(files: dict[str, int]) -> None:
    assert default_model(gguf_models(files), None) is None
