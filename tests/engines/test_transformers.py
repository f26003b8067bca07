"""What the Transformers adapter takes, refuses and starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import host_of, plan_of, pooling_plan, spec_of
from tests.support.cases import in_one_test
from xinference.catalog.models import ModelType
from xinference.engines.memory_model import Dimensions
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement
from xinference.engines.transformers.engine import VERSION, Transformers
from xinference.engines.transformers.memory_model import POOLED_LATER
from xinference.engines.transformers.server.draft_lengths import MOST_TOKENS
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.planning.memory import MemoryBudget, size_replica
from xinference.process.command import ProgressProbe

ENGINE = Transformers()


def params_of(devices: tuple[int, ...] = (), **options: Any) -> dict[str, Any]:
    plan = plan_of(options=ENGINE.check_options(options, {}))
    command = ENGINE.command(plan, "secret", Placement(Path("/env/bin/python"), devices))
    params: dict[str, Any] = json.loads(command.env["XINFERENCE_TRANSFORMERS_PARAMS"])
    return params


def test_it_is_available_on_a_cpu_with_avx2_and_says_what_another_lacks() -> None:
    spec = spec_of("pytorch", "none")
    assert ENGINE.available(spec, host_of())
    assert "avx2" in (ENGINE.available(spec, host_of(flags=frozenset())).reason or "")


def test_a_driver_that_is_too_old_is_named() -> None:
    reason = ENGINE.available(spec_of("pytorch", "none"), host_of(gpus=1, cuda=(12, 4))).reason
    assert reason is not None and "550.54" in reason


@pytest.mark.parametrize("gpus", [0, 1])
def test_its_environment_has_a_lock(gpus: int) -> None:
    spec = ENGINE.environment(host_of(gpus=gpus))
    assert spec is not None and spec.version == VERSION
    locks = Path(__file__).parents[2] / "src" / "xinference" / "environments" / "locks"
    assert (locks / f"{spec.name}.toml").is_file()


def test_context_and_slots_are_the_plans() -> None:
    params = params_of()
    assert (params["context_length"], params["max_num_seqs"], params["uid"]) == (4095, 4, "mine")


def test_the_key_and_the_parameters_stay_out_of_the_process_list() -> None:
    command = ENGINE.command(plan_of(), "secret", Placement(Path("/env/bin/python")))
    assert "secret" not in " ".join(command.argv) and "/weights/here" not in " ".join(command.argv)


def test_it_runs_on_the_gpus_it_was_given_unless_the_cpu_is_asked_for() -> None:
    assert params_of(devices=(0,))["device"] == "cuda"
    assert params_of(devices=(0,), device="cpu")["device"] == params_of()["device"] == "cpu"


def test_remote_code_is_off_unless_asked_for_by_name() -> None:
    assert "trust_remote_code" not in params_of()
    assert params_of(trust_remote_code=True)["trust_remote_code"] is True


def test_options_of_an_older_xinference_are_taken_without_effect() -> None:
    assert ENGINE.check_options({"gptq_wbits": 16, "enable_tensorizer": False, "gptq_ckpt": None}, {}) == {}


def test_adapters_are_given_as_objects_or_as_words() -> None:
    both = ENGINE.check_options({"lora_modules": [{"a": "/x"}, "b=/y"]}, {})
    assert both == {"lora_modules": {"a": "/x", "b": "/y"}}


@in_one_test(
    ("options", "said"),
    [
        ({"max_num_seq": 4}, "no option --max_num_seq"),
        ({"max_num_seqs": "four"}, "--max_num_seqs is 'four'"),
        ({"context_length": 0}, "must be positive"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"lora_modules": ["x"]}, "NAME=PATH"),
        ({"port": 1}, "is reserved: Xinference sets it"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as caught:
        ENGINE.check_options(options, {})
    assert said in caught.value.cause


def test_last_words_are_explained() -> None:
    hint = ENGINE.explain(["transformers could not load the model: there are no .safetensors files in /x"])
    assert hint is not None and "safetensors" in hint
    assert ENGINE.explain(["all is well"]) is None


def test_its_progress_is_shown_by_its_computing_thread() -> None:
    made = ENGINE.command(plan_of(), "secret", Placement(Path("/env/bin/python")))
    assert made.progress == ProgressProbe("/progress") and made.extra_bytes == 0
    single = plan_of(options={"threads": 1})
    assert ENGINE.command(single, "secret", Placement(Path("/env/bin/python"))).progress == ProgressProbe(
        "/progress", one_thread=True
    )


# -- embeddings and rerank --------------------------------------------------------------------------------------------


@in_one_test(
    "name", ["Transformers", "transformers", "sentence_transformers", "Sentence-Transformers", "flag", "FlagEmbedding"]
)
def test_the_engines_of_older_servers_are_its_names(name: str) -> None:
    assert ENGINE.table.has_name(name) and not ENGINE.table.has_name("vLLM")


def test_names_are_compared_without_case_and_punctuation() -> None:
    for name in ("llama.cpp", "llama-cpp", "LLAMA_CPP", " llama.cpp "):
        assert [each.table.engine for each in all_engines().values() if each.table.has_name(name)] == ["llama.cpp"]


@pytest.mark.parametrize(
    ("model_type", "own"), [("embedding", {"/v1/embeddings"}), ("rerank", {"/v1/rerank", "/rerank"})]
)
def test_a_pooled_model_has_its_own_paths_and_its_type_reaches_the_server(model_type: ModelType, own: set[str]) -> None:
    plan = pooling_plan(model_type)
    assert ENGINE.paths(plan) == own | {"/tokenize", "/detokenize"}
    command = ENGINE.command(plan, "secret", Placement(Path("/env/bin/python")))
    assert json.loads(command.env["XINFERENCE_TRANSFORMERS_PARAMS"])["model_type"] == model_type


@pytest.mark.parametrize(
    ("model_type", "option"),
    [
        ("embedding", "lora_modules"),
        ("embedding", "prompt_lookup_num_tokens"),
        ("rerank", "pooling_type"),
        ("rerank", "prompt_lookup_num_tokens"),
        ("LLM", "pooling_type"),
    ],
)
def test_an_option_without_an_effect_on_the_model_is_refused(model_type: ModelType, option: str) -> None:
    plan = plan_of() if model_type == "LLM" else pooling_plan(model_type)
    with pytest.raises(Problem, match=f"--{option} has no effect on {model_type} models"):
        ENGINE.complete_options(plan.version, plan.request, {option: "x"})


def test_a_pooling_is_checked_by_its_name() -> None:
    assert ENGINE.check_options({"pooling_type": "cls"}, {}) == {"pooling_type": "cls"}
    with pytest.raises(Problem, match="--pooling_type is 'best'"):
        ENGINE.check_options({"pooling_type": "best"}, {})


@pytest.mark.parametrize("length", [0, 1, 64])
def test_the_length_of_drafts_reaches_the_server(length: int) -> None:
    options = ENGINE.check_options({"prompt_lookup_num_tokens": length}, {})
    assert options == {"prompt_lookup_num_tokens": length}


@pytest.mark.parametrize("length", [-1, 65])
def test_a_length_of_drafts_beyond_the_limits_is_refused(length: int) -> None:
    with pytest.raises(Problem, match=f"--prompt_lookup_num_tokens is {length}, and must be a number from 0"):
        ENGINE.check_options({"prompt_lookup_num_tokens": length}, {})


def test_the_plan_has_the_scores_of_a_step_with_drafts() -> None:
    dims = Dimensions(vocab=150_000, hidden=1024, longest=1)
    scores = MOST_TOKENS * 4 * 150_000
    assert scores <= ENGINE.memory.cpu_later(dims) < scores + (1 << 20)
    assert ENGINE.memory.cuda_overhead(dims) > scores + (700 << 20)


def test_a_pooled_model_needs_no_cache_and_memory_for_one_group() -> None:
    stored = ModelShape(90 << 20, 9216, 256, 30522, hidden=384, heads=12, element_bytes=4, pooled=True)
    loaded = ENGINE.memory.loaded_shape(stored, "pytorch", "none", {}, on_cpu=True)
    sizing = size_replica(loaded, ENGINE.memory, MemoryBudget(8 << 30), family_context=512)
    assert (sizing.context_length, sizing.slots, sizing.kv_cache_bytes) == (256, 16, 0)
    assert sizing.weights_bytes == 90 << 20
    assert 150 << 20 < sizing.later_bytes - POOLED_LATER < 170 << 20


@pytest.mark.parametrize("engine", ["Transformers", "vLLM"])
@pytest.mark.parametrize(("architecture", "labels"), [("LlamaForCausalLM", None), ("BertForSequenceClassification", 2)])
def test_ranking_needs_a_head_with_one_score(engine: str, architecture: str, labels: int | None) -> None:
    shape = ModelShape(1, 1, 512, 10, pooled=True, architecture=architecture, labels=labels)
    with pytest.raises(Problem, match="can't rank") as caught:
        all_engines()[engine].check_weights(pooling_plan("rerank").launch, shape)
    assert (caught.value.code, architecture in caught.value.cause) == ("engine_unsupported", True)
    all_engines()[engine].check_weights(pooling_plan("embedding").launch, shape)
    ranker = ModelShape(1, 1, 512, 10, architecture="BertForSequenceClassification", labels=1)
    all_engines()[engine].check_weights(pooling_plan("rerank").launch, ranker)
