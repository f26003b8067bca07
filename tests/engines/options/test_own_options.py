"""Xinference's own options, which have the same names on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import launch_of, plan_of, sized
from tests.support.cases import in_one_test
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement
from xinference.errors import Problem

ENGINES = all_engines()
KNOWN = {
    "n_ctx": "int",
    "n_parallel": "int",
    "load_mtp": "bool",
    "reasoning_format": "enum:COMMON_REASONING_FORMAT_NONE=0|COMMON_REASONING_FORMAT_AUTO=1",
    "speculative.types": "list:enum:COMMON_SPECULATIVE_TYPE_NONE=0|COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE=1"
    "|COMMON_SPECULATIVE_TYPE_DRAFT_MTP=3|COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE=6",
    "speculative.draft.mparams.path": "str",
    "speculative.draft.n_max": "int",
}
MTP = ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"]


def checked(engine: str, **options: Any) -> dict[str, Any]:
    return ENGINES[engine].check_options(options, KNOWN)


def refused(engine: str, **options: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        checked(engine, **options)
    assert (caught.value.status, caught.value.code) == (400, "bad_option")
    return caught.value


@pytest.fixture
def draft(tmp_path: Path) -> str:
    """The folder of a draft model with one GGUF file."""
    (tmp_path / "draft-Q8_0.gguf").touch()
    return str(tmp_path)


# -- context ------------------------------------------------------------------------------------------------------


@in_one_test(
    ("engine", "own"),
    [
        ("llama.cpp", "n_ctx"),
        ("vLLM", "max_model_len"),
        ("SGLang", "context_length"),
        ("Transformers", "context_length"),
    ],
)
@in_one_test("name", ["context_length", "max_model_len", "n_ctx"])
def test_the_context_has_each_name_on_every_engine(engine: str, own: str, name: str) -> None:
    assert checked(engine, **{name: 4096}) == {own: 4096}
    assert ENGINES[engine].memory.context_option == own


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_one_option_under_two_names_must_have_one_value(engine: str) -> None:
    assert len(checked(engine, context_length=512, n_ctx=512)) == 1
    assert "the same option" in refused(engine, context_length=512, n_ctx=1024).cause


# -- reasoning ----------------------------------------------------------------------------------------------------


def test_reasoning_stays_in_the_answer_if_it_is_not_to_be_apart() -> None:
    assert checked("llama.cpp", reasoning_content=True) == {}
    assert checked("llama.cpp", reasoning_content=False) == {"reasoning_format": "COMMON_REASONING_FORMAT_NONE"}
    for engine in ("vLLM", "SGLang"):
        for value, has_parser in ((True, True), (False, False)):
            options = checked(engine, reasoning_content=value)
            launch = launch_of("qwen3", engine=engine, options=options)
            command = ENGINES[engine].command(sized(launch), "k", Placement(Path("/env/bin/python")))
            assert ("--reasoning-parser" in command.argv) is has_parser, (engine, value)
    assert checked("Transformers", reasoning_content=True) == {}


@pytest.mark.parametrize(
    ("engine", "own"), [("llama.cpp", "reasoning_format"), ("vLLM", "reasoning_parser"), ("SGLang", "reasoning_parser")]
)
def test_reasoning_is_not_set_twice(engine: str, own: str) -> None:
    assert "set the same" in refused(engine, reasoning_content=True, **{own: "none"}).cause
    assert "true or false" in refused(engine, reasoning_content="yes").cause


# -- speculative decoding -----------------------------------------------------------------------------------------


def test_a_draft_model_is_passed_by_each_engines_own_options(draft: str) -> None:
    options = {"draft_model_path": draft, "num_speculative_tokens": 4}
    assert checked("llama.cpp", **options) == {
        "speculative.types": MTP,
        "speculative.draft.mparams.path": f"{draft}/draft-Q8_0.gguf",
        "speculative.draft.n_max": 4,
    }
    assert checked("vLLM", **options, draft_quantization="fp8") == {
        "speculative_config": {"method": "mtp", "model": draft, "num_speculative_tokens": 4, "quantization": "fp8"}
    }
    assert checked("SGLang", **options, draft_quantization="fp8") == {
        "speculative_algorithm": "NEXTN",
        "speculative_draft_model_path": draft,
        "speculative_draft_model_quantization": "fp8",
        "speculative_num_steps": 3,
        "speculative_eagle_topk": 1,
        "speculative_num_draft_tokens": 4,
    }


def test_without_a_draft_model_the_models_own_layers_draft() -> None:
    for value in (True, "true", "1", 1):
        assert checked("llama.cpp", enable_mtp=value) == {"speculative.types": MTP, "load_mtp": True}
        assert checked("vLLM", enable_mtp=value) == {
            "speculative_config": {"method": "mtp", "num_speculative_tokens": 1}
        }
        assert checked("SGLang", enable_mtp=value) == {"speculative_algorithm": "NEXTN"}
    for engine in ENGINES:
        for off in (False, "false", None):
            assert checked(engine, enable_mtp=off) == {}


def test_an_engines_own_option_selects_another_method(draft: str) -> None:
    simple = checked("llama.cpp", **{"draft_model_path": draft, "speculative.types": "draft-simple"})
    assert simple["speculative.types"] == ["COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE"]
    other = checked("vLLM", draft_model_path=draft, spec_method="eagle3")
    assert other["speculative_config"]["method"] == "eagle3" and "spec_method" not in other
    assert checked("SGLang", draft_model_path=draft, speculative_algorithm="STANDALONE")["speculative_algorithm"] == (
        "STANDALONE"
    )


def test_a_folder_with_several_files_needs_the_quantization(draft: str) -> None:
    Path(draft, "draft-Q4_0.gguf").touch()
    problem = refused("llama.cpp", draft_model_path=draft)
    assert "2 GGUF files" in problem.cause and "--draft_quantization" in str(problem.hint)
    found = checked("llama.cpp", draft_model_path=draft, draft_quantization="q4_0")
    assert found["speculative.draft.mparams.path"].endswith("draft-Q4_0.gguf")
    assert "no GGUF file of quantization" in refused("llama.cpp", draft_model_path=draft, draft_quantization="F1").cause
    file = f"{draft}/draft-Q4_0.gguf"
    assert "is a file" in refused("llama.cpp", draft_model_path=file, draft_quantization="q4_0").cause


def test_the_draft_models_file_counts_as_weights(draft: str) -> None:
    options = checked("llama.cpp", draft_model_path=draft)
    launch = launch_of(engine="llama.cpp", options=options, origin=Path("/w/m.gguf"))
    (file,) = ENGINES["llama.cpp"].extra_weight_files(launch, Path("/w/m.gguf"))
    assert (str(file.path), file.architecture) == (f"{draft}/draft-Q8_0.gguf", None)


@pytest.mark.parametrize(("method", "architecture"), [("DRAFT_EAGLE3", "eagle3"), ("DRAFT_DFLASH", "dflash")])
def test_a_method_with_a_model_of_its_own_architecture_needs_it(draft: str, method: str, architecture: str) -> None:
    known = KNOWN | {"speculative.types": f"{KNOWN['speculative.types']}|COMMON_SPECULATIVE_TYPE_{method}=2"}
    options = {"draft_model_path": draft, "speculative.types": [method]}
    launch = launch_of(engine="llama.cpp", options=ENGINES["llama.cpp"].check_options(options, known))
    (file,) = ENGINES["llama.cpp"].extra_weight_files(launch, Path("/w/m.gguf"))
    assert file.architecture == architecture


def test_an_engine_without_speculative_decoding_refuses_it_by_name(draft: str) -> None:
    assert "--enable_mtp is not supported on Transformers" in refused("Transformers", enable_mtp=True).cause
    assert "--draft_model_path is not supported" in refused("Transformers", draft_model_path=draft).cause


@in_one_test("engine", sorted(ENGINES))
@in_one_test(
    ("options", "said"),
    [
        ({"num_speculative_tokens": 3}, "--num_speculative_tokens has an effect only"),
        ({"draft_quantization": "Q4_0"}, "--draft_quantization has an effect only"),
        ({"enable_mtp": True, "draft_quantization": "Q4_0"}, "--draft_quantization is for a draft model in files"),
        ({"enable_mtp": "perhaps"}, "--enable_mtp is 'perhaps'"),
        ({"enable_mtp": True, "num_speculative_tokens": 0}, "--num_speculative_tokens is 0"),
        ({"enable_mtp": True, "num_speculative_tokens": 1.5}, "--num_speculative_tokens is 1.5"),
        ({"draft_model_path": "draft.gguf"}, "must be the absolute path"),
        ({"draft_model_path": "/nowhere/draft.gguf"}, "there is no file or folder /nowhere/draft.gguf"),
    ],
)
def test_an_option_that_would_have_no_effect_or_a_wrong_one_is_refused_by_name(
    engine: str, options: dict[str, Any], said: str
) -> None:
    assert said in refused(engine, **options).cause


@pytest.mark.parametrize(
    ("engine", "own", "value"),
    [
        ("vLLM", "speculative_config", {"method": "ngram"}),
        ("vLLM", "spec_tokens", 3),
        ("SGLang", "speculative_num_draft_tokens", 3),
    ],
)
def test_the_same_is_not_set_twice(engine: str, own: str, value: Any) -> None:
    problem = refused(engine, enable_mtp=True, num_speculative_tokens=3, **{own: value})
    assert f"--{own} set the same" in problem.cause


def test_a_method_of_llama_cpp_without_a_draft_model_is_refused() -> None:
    assert "DRAFT_SIMPLE needs a draft model" in refused("llama.cpp", **{"speculative.types": ["DRAFT_SIMPLE"]}).cause
    assert "--enable_mtp true" in str(refused("llama.cpp", **{"speculative.types": ["DRAFT_MTP"]}).hint)


def test_the_context_option_decides_the_context_of_each_slot() -> None:
    plan = plan_of(options=checked("llama.cpp", context_length=4096))
    assert plan.options == {"n_ctx": 4096}
