"""What llama.cpp is started with, and what of a user's options reaches it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engines.plans import launch_of
from tests.support.cases import in_one_test
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.llama_cpp.memory_model import SMALL_WEIGHTS
from xinference.engines.replica_placement import Placement
from xinference.errors import Problem
from xinference.launch.plan import SizedPlan, Sizing
from xinference.launch.request import LaunchRequest

KNOWN = {"n_batch": "int", "use_jinja": "bool", "sampling.temp": "float", "chat_template": "str", "load_mode": "enum"}
SIZING = Sizing(context_length=1000, slots=3, weights_bytes=1, kv_cache_bytes=1, overhead_bytes=1)


def plan(name: str = "llama-2-chat", **fields: Any) -> SizedPlan:
    request, path = LaunchRequest(model_name=name, model_format="ggufv2"), Path("/w/model.gguf")
    launch = launch_of(uid="my-model", engine="llama.cpp", request=request, origin=path, threads=4, **fields)
    return SizedPlan(launch, path, SIZING)


def params(made: SizedPlan) -> dict[str, Any]:
    command = LlamaCpp().command(made, "the-key", Placement(Path("/env/bin/python")))
    found: dict[str, Any] = json.loads(command.env["XINFERENCE_LLAMA_PARAMS"])
    return found


def test_the_key_is_in_the_environment_and_never_in_the_process_list() -> None:
    command = LlamaCpp().command(plan(), "the-key", Placement(Path("/env/bin/python")))
    assert command.argv[0] == "/env/bin/python"
    assert "the-key" not in " ".join(command.argv)
    assert command.env["XINFERENCE_ENGINE_KEY"] == command.api_key == "the-key"
    assert "the-key" not in command.env["XINFERENCE_LLAMA_PARAMS"]


def test_each_slot_gets_one_cell_more_than_the_promised_prompt() -> None:
    given = params(plan())
    assert (given["n_parallel"], given["kv_unified"], given["kv_unified_per_slot"]) == (3, True, 1001)


def test_small_weights_on_the_cpu_get_small_batches() -> None:
    small, large = plan(use_gpu=False), plan(use_gpu=False)
    large = replace(large, sizing=msgspec.structs.replace(SIZING, weights_bytes=SMALL_WEIGHTS))
    batches = {
        slots: params(replace(small, sizing=msgspec.structs.replace(small.sizing, slots=slots)))["n_ubatch"]
        for slots in (1, 2, 3, 8, 16)
    }
    assert batches == {1: 128, 2: 128, 3: 192, 8: 512, 16: 512}  # 64 tokens for each slot
    assert params(plan(use_gpu=False, options={"n_ubatch": 64}))["n_ubatch"] == 64
    # A projector's image may have to be in one batch.
    vision = plan(use_gpu=False, options={"mmproj.path": "/w/mmproj.gguf"})
    assert all("n_ubatch" not in params(made) for made in (large, vision, plan(use_gpu=True)))


def test_long_prompts_on_the_cpu_let_other_work_in_after_512_tokens() -> None:
    assert params(plan(use_gpu=False))["n_batch"] == 512
    assert params(plan(use_gpu=False, options={"n_ubatch": 1024}))["n_batch"] == 1024
    assert params(plan(use_gpu=False, options={"n_batch": 2048}))["n_batch"] == 2048
    assert "n_batch" not in params(plan(use_gpu=True))


def test_the_uid_is_the_models_name_and_the_familys_template_is_used() -> None:
    given = params(plan())
    assert given["model_alias"] == "my-model"
    assert "[INST]" in given["chat_template"]


def test_a_users_option_wins_over_our_default_but_not_over_the_promise() -> None:
    given = params(plan(options={"cpuparams.n_threads": 1, "n_ctx": 5, "chat_template": "mine"}))
    assert (given["cpuparams.n_threads"], given["chat_template"]) == (1, "mine")
    assert given["kv_unified_per_slot"] == 1001


def test_a_braced_port_in_a_template_is_not_taken_for_the_port() -> None:
    command = LlamaCpp().command(plan(options={"chat_template": "{port}"}), "k", Placement(Path("python")))
    assert "{port}" not in command.env["XINFERENCE_LLAMA_PARAMS"]


def test_a_pooled_model_takes_its_whole_prompt_in_one_batch() -> None:
    for model in ("bge-m3", "bge-reranker-v2-m3"):
        given = params(plan(model))
        assert given["embedding"] is True and given["n_ubatch"] == given["n_batch"] == 1024
        assert given["n_ubatch"] >= plan(model).sizing.context_length
    assert params(plan("bge-reranker-v2-m3"))["pooling_type"] == "LLAMA_POOLING_TYPE_RANK"


def test_routes_follow_the_type_of_the_model() -> None:
    engine = LlamaCpp()
    assert "/v1/chat/completions" in engine.paths(plan())
    assert "/v1/embeddings" not in engine.paths(plan())
    assert "/v1/embeddings" in engine.paths(plan(options={"embedding": True}))
    assert engine.paths(plan("bge-m3")) == {"/v1/embeddings", "/tokenize", "/detokenize"}


@in_one_test(
    ("given", "checked"),
    [
        ({"n_batch": 5}, {"n_batch": 5}),
        ({"batch_size": 5}, {"n_batch": 5}),
        ({"sampling.temp": 1}, {"sampling.temp": 1.0}),
        ({"use_jinja": False}, {"use_jinja": False}),
        ({"n_batch": None, "n_gqa": 8, "f16_kv": True, "trust_remote_code": True}, {}),
        ({"use_mmap": False, "use_mlock": True}, {"load_mode": "LLAMA_LOAD_MODE_MLOCK"}),
    ],
)
def test_options_come_out_by_the_engines_own_names(given: dict[str, Any], checked: dict[str, Any]) -> None:
    assert LlamaCpp().check_options(given, KNOWN) == checked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_bach": 5}, "no option --n_bach"),
        ({"n_batch": "5"}, "--n_batch is '5'"),
        ({"use_jinja": 1}, "--use_jinja is 1"),
        ({"port": 80}, "--port is reserved: Xinference sets it"),
        ({"ports": 80}, "no option --ports"),
    ],
)
def test_an_option_that_is_not_there_or_of_another_type_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said):
        LlamaCpp().check_options(given, KNOWN)


@pytest.mark.parametrize(
    ("name", "near"), [("temperature", "--sampling.temp"), ("temp", "--sampling.temp"), ("n_bach", "--n_batch")]
)
def test_an_option_of_another_name_is_answered_with_the_near_one(name: str, near: str) -> None:
    with pytest.raises(Problem) as refused:
        LlamaCpp().check_options({name: 1}, KNOWN)
    assert f"{near}" in str(refused.value.hint) and len(str(refused.value.hint)) < 100


def test_last_words_that_are_known_become_a_hint() -> None:
    engine = LlamaCpp()
    assert "update xllamacpp" in str(engine.explain(["x", "error: unknown model architecture: 'foo'"]))
    assert engine.explain(["all is well"]) is None


def test_stop_texts_of_a_family_end_answers_and_special_tokens_need_not_be_named() -> None:
    plain = plan()
    family = msgspec.structs.replace(plain.version.family, stop=("</s>", "<|im_end|>", "USER:", "### Human"))
    version = msgspec.structs.replace(plain.version, family=family)
    assert params(plan(version=version))["antiprompt"] == ["USER:", "### Human"]
    assert "antiprompt" not in params(plain)
    given = plan(version=version, options={"antiprompt": ["mine"]})
    assert params(given)["antiprompt"] == ["mine"]


@pytest.mark.parametrize("name", ["multimodal_projector", "mmproj", "mmproj.path"])
def test_a_projector_is_named_by_its_path(name: str) -> None:
    known = KNOWN | {"mmproj.path": "str"}
    assert LlamaCpp().check_options({name: "/w/mmproj.gguf"}, known) == {"mmproj.path": "/w/mmproj.gguf"}


def test_a_projector_of_another_models_width_is_named_with_both_widths() -> None:
    log = [
        "E mtmd_init_from_file: error: mismatch between text model (n_embd = 256) and mmproj (n_embd = 128)",
        "E srv load_model: failed to load multimodal model, '/w/my mmproj.gguf'",
    ]
    explanation = LlamaCpp().explain(log)
    assert explanation is not None
    assert explanation.startswith(
        "The projector /w/my mmproj.gguf is for an embedding width of 128, and this model's is 256"
    )
    assert "damaged" in str(LlamaCpp().explain(log[1:]))
