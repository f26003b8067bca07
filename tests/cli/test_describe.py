from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from xinference.cli.model_description import family_text, instance_text

INSTANCE: dict[str, Any] = {
    "model_uid": "mine",
    "status": "READY",
    "instance_created_ts": 1,
    "model_type": "LLM",
    "model_name": "qwen3",
    "model_engine": "Transformers",
    "model_format": "pytorch",
    "model_size_in_billions": "0_6",
    "quantization": "none",
    "model_ability": ["chat", "tools"],
    "model_hub": "huggingface",
    "revision": "abc",
    "context_length": 8192,
    "slots": 4,
    "planned_memory_bytes": 3 << 30,
    "memory_used_bytes": 2 << 30,
    "gpu_memory_used_bytes": None,
    "aliases": ["gpt-4o"],
    "adapters": ["tuned"],
    "max_output_tokens": 100,
    "on_demand": True,
    "ttl": 300.0,
    "pin": False,
    "priority": 2,
    "problem": None,
    "replicas": [
        {
            "replica_id": 0,
            "address": "http://127.0.0.1:4711",
            "status": "READY",
            "engine_pid": 12,
            "keeper_pid": 11,
            "gpu_idx": [0, 1],
            "node": "local",
        },
        {"replica_id": 1, "status": "ERROR", "error_message": "It died."},
    ],
}
FAMILY: dict[str, Any] = {
    "model_name": "qwen3",
    "model_description": "A model that thinks before it answers a question, or answers at once, as the request asks.",
    "context_length": 40960,
    "model_lang": ["en", "zh"],
    "model_ability": ["chat", "reasoning"],
    "is_builtin": True,
    "model_specs": [
        {
            "model_format": "ggufv2",
            "model_size_in_billions": size,
            "quantizations": ["Q4_K_M", "Q8_0", "Q2_K", "Q3_K_S", "Q6_K"],
            "sources": [{"hub": "huggingface", "model_id": f"org/qwen3-{size}"}],
        }
        for size in (4, "0_6")
    ],
}
OWNERS = [{"model_uid": "mine", "replica": number, "planned": 3 << 30, "measured": 1 << 30} for number in range(2)]


@pytest.fixture
def server(canned: Canned) -> Canned:
    canned.answers["GET", "/v1/models/instances"] = Answer([INSTANCE])
    canned.answers["GET", "/v1/models/mine/reload/config"] = Answer({"model_config": {"n_ctx": 8192}})
    canned.answers["GET", "/v1/devices"] = Answer({"host": {"owners": OWNERS}, "gpus": []})
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": False})
    canned.answers["GET", "/v1/model_registrations/LLM"] = Answer([FAMILY])
    for kind in ("embedding", "rerank"):
        canned.answers["GET", f"/v1/model_registrations/{kind}"] = Answer([])
    return canned


def test_a_launched_model_is_described_with_its_resources_replicas_and_commands(
    server: Canned, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run("describe", "mine").stdout
    for line in (
        "mine (launched)",
        "Aliases:     gpt-4o",
        "Model:       qwen3 0.6B pytorch",
        "Abilities:   chat, tools",
        "Engine:      Transformers",
        "Options:     --n_ctx 8192",
        "Context:     8192 tokens for a prompt and its answer, in each of 4 slots",
        "Limits:      100 output tokens in an answer",
        "Memory:      2.0 GiB used, 6.0 GiB planned",
        "Unloading:   on demand: unloaded after 5 min without a request, priority 2",
        "Adapters:    tuned",
        "Replicas:    0: READY, 127.0.0.1:4711, engine pid 12, keeper pid 11, GPU 0, 1",
        "             1: ERROR, It died.",
        "  xinference chat mine",
        f"  curl {server.url}/v1/chat/completions \\",
    ):
        assert line in text
    assert "qwen3 (registered)" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_alias_or_the_name_of_its_family_finds_a_launched_model(server: Canned, run: Run) -> None:
    assert run("describe", "gpt-4o").stdout.startswith("mine (launched)")
    both = run("show", "qwen3").stdout
    assert both.index("mine (launched)") < both.index("qwen3 (registered)")


def test_a_name_with_a_tag_is_described_as_its_family(server: Canned, run: Run) -> None:
    assert run("describe", "qwen3:4b").stdout.startswith("qwen3 (registered)")


def test_the_example_of_a_server_with_keys_sends_a_key(server: Canned, run: Run) -> None:
    server.answers["GET", "/v1/cluster/auth"] = Answer({"auth": True})
    server.answers["GET", "/v1/models/mine/reload/config"] = problem(403, "forbidden", "This key may not.")
    text = run("describe", "mine").stdout
    assert "-H 'authorization: Bearer YOUR_KEY'" in text and "Options:" not in text


def test_the_description_as_json_has_the_answers_of_the_server(server: Canned, run: Run) -> None:
    found = json.loads(run("describe", "mine", "--json").stdout)
    assert found == {"launched": [INSTANCE | {"engine_options": {"n_ctx": 8192}}], "registered": None}
    assert json.loads(run("describe", "qwen3", "--json").stdout)["registered"] == {"model_type": "LLM"} | FAMILY


def test_a_registered_model_is_described_by_size_format_and_origin(
    server: Canned, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    server.answers["GET", "/v1/models/instances"] = Answer([])
    text = run("describe", "QWEN3").stdout
    assert "Versions:    ggufv2: 0.6B, 4B (Q4_K_M, Q8_0, Q2_K, Q3_K_S and 1 more)" in text
    assert "Weights:     org/qwen3-4 and 1 more (huggingface)" in text
    assert "xinference launch qwen3 " in text
    assert max(map(len, text.splitlines())) <= 80
    description = text.partition("Description: ")[2].partition("Abilities")[0].splitlines()
    assert [line[:15].isspace() and not line[15].isspace() for line in description[1:-1]] == [True]


def test_an_unknown_name_gets_a_similar_one_and_status_1(server: Canned, run: Run) -> None:
    result = run("describe", "qwen")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: No launched or registered model has the name 'qwen'.\nHint: Did you mean qwen3?\n"
    assert "`xinference inspect org/repo`" in run("describe", "org/repo").stderr


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"model_type": "embedding", "model_ability": ["embed"], "dimensions": 384}, ["/v1/embeddings", "384"]),
        ({"model_type": "rerank", "model_ability": ["rerank"]}, ["/v1/rerank"]),
        ({"model_ability": ["generate"]}, ["/v1/completions", "xinference generate mine"]),
        ({"status": "ERROR", "problem": {"cause": "It died.", "hint": "Look."}}, ["It died.", "xinference logs mine"]),
        ({"pin": True}, ["never unloaded for another model"]),
        ({"replicas": [], "slots": None, "context_length": None}, ["qwen3 0.6B"]),
    ],
)
def test_the_text_follows_the_kind_and_the_state_of_the_model(changes: dict[str, Any], lines: list[str]) -> None:
    text = instance_text(INSTANCE | {"url": "http://127.0.0.1:9997", "needs_key": False} | changes)
    assert all(line in text for line in lines)


def test_the_commands_of_a_registered_model_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("smollm2-instruct", "deepseek-r1-distill-qwen", "a-name-with-more-than-twenty-four-letters"):
        family: dict[str, Any] = {"model_name": name, "model_type": "LLM", "model_specs": []}
        commands = family_text(family).partition("Launch it:\n")[2].splitlines()
        assert len(commands) == 2 and max(map(len, commands)) <= 80
