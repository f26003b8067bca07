"""Every table fits a terminal of 80 columns, with the longest values that its columns can have."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import click
import pytest

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from xinference.cli import table

COLUMNS = 80
#: The longest uid that a person would type; it is never cut.
UID = "qwen3-coder-30b-a3b-instruct-with-a-long-name-of-a-team"
FAMILY = "deepseek-r1-distill-qwen-with-a-long-name"
TIB, NOW = 1 << 40, time.time()
INSTANCE = {
    "model_uid": UID,
    "model_name": FAMILY,
    "model_type": "embedding",
    "model_engine": "Transformers",
    "model_format": "ggufv2",
    "model_size_in_billions": "480_55",
    "quantization": "UD-IQ2_XXS",
    "context_length": 1_048_576,
    "status": "TERMINATING",
    "memory_used_bytes": 1023 << 30,
    "gpu_memory_used_bytes": 1023 << 30,
    "on_demand": True,
    "ttl": 86_400.0,
    "replica": 16,
    "replicas": [{"status": "READY"}] * 12 + [{"status": "LOADING"}] * 4,
    "instance_created_ts": NOW - 999 * 86_400,
    "problem": None,
}
RATES = {"in_flight": [1024.0], "waiting": [4096.0], "output_tokens_per_second": [123_456.7]}
OWNER = {"model_uid": UID, "replica": 0, "planned": 1023 << 30, "measured": 1}
RECORD = {
    "model_uid": UID,
    "model_name": FAMILY,
    "status": "cancelled",
    "created_at": "2020-01-02T03:04:05Z",
    "ready_at": "2020-01-02T03:04:08Z",
    "problem": {"code": "c", "cause": "The engine died: " + "/a/folder/with/a/long/path" * 6},
}
KEY = {
    "id": "k" * 16,
    "name": "the-key-of-the-team-that-has-the-longest-name",
    "scopes": ["use", "manage", "monitor"],
    "models": [UID, FAMILY],
    "requests_per_minute": 10**9,
    "tokens_per_minute": 10**12,
    "requests_in_flight": 10**6,
    "max_output_tokens": 10**9,
    "max_request_seconds": 86_400.25,
    "expires": NOW,
    "last_used": NOW,
    "revoked": NOW,
}
CACHED = {
    "model_name": FAMILY,
    "model_size_in_billions": "480_55",
    "model_format": "pytorch",
    "quantization": "UD-Q4_K_XL",
    "size_bytes": 1023 << 30,
    "complete": False,
    "model_version": f"{FAMILY}--480_55B--pytorch--UD-Q4_K_XL",
    "path": "/long" * 40,
}
CATALOG = {
    "version": "2026.11.29-a-long-name-of-a-version",
    "state": "in use",
    "families": 10_000,
    "created": NOW,
    "source": "https://example.com/" + "folder/" * 20,
    "sha256": "f" * 64,
}
SPEC = {"model_format": "pytorch", "quantizations": ["none"], "model_size_in_billions": "480_55"}
REGISTERED = {
    "model_name": FAMILY,
    "context_length": 10_485_760,
    "model_ability": ["chat", "vision", "reasoning", "hybrid", "tools", "generate"],
    "model_lang": ["en", "zh"] * 20,
    "model_specs": [SPEC | {"model_size_in_billions": size} for size in range(1, 40)],
    "is_builtin": True,
}
FIT = {
    "model_name": FAMILY,
    "model_size_in_billions": "480_55",
    "model_format": "pytorch",
    "quantization": "UD-IQ2_XXS",
    "engine": "Transformers",
    "fits": "after_unloading",
    "unload": [UID, FAMILY],
    "memory_bytes": 1023 << 30,
    "weights_bytes": TIB,
    "code": None,
    "reason": "It fits." * 30,
}
USAGE = {
    "model": UID,
    "key": KEY["name"],
    "time": NOW,
    "requests": 10**9,
    "prompt_tokens": 10**12,
    "cached_tokens": 10**12,
    "output_tokens": 10**12,
    "estimated": 5,
    "first_token_p50": 9_999.99,
    "first_token_p95": 9_999.99,
    "per_token_p50": 0.0001,
}


def engine_row(engine: str, quantization: str, reason: str | None) -> dict[str, Any]:
    names = {"engine": engine, "quantization": quantization, "reason": reason, "ok": reason is None}
    return {"model_format": "pytorch", "model_size_in_billions": "480_55", **names}


ENGINES = [
    engine_row(engine, f"UD-Q{bits}_K_XL", reason)
    for bits in range(30)
    for engine, reason in (("Transformers", None), ("SGLang", "It requires a GPU of CUDA. " * 10), ("vLLM", None))
]
ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", "/v1/models/instances"): [INSTANCE, INSTANCE | {"model_uid": "m"}],
    ("GET", "/v1/devices"): {"host": {"owners": [OWNER]}, "gpus": [{"owners": [OWNER]}]},
    ("GET", "/v1/launch_history"): [RECORD, RECORD | {"model_uid": "m"}],
    ("GET", "/v1/keys"): [KEY, KEY | {"name": "k"}],
    ("GET", "/v1/cache/models"): {"list": [CACHED]},
    ("GET", "/v1/catalog"): {"catalogs": [CATALOG]},
    ("GET", "/v1/model_registrations/LLM"): [REGISTERED],
    ("GET", "/v1/fits"): [FIT],
    ("GET", "/v1/usage"): [USAGE, USAGE | {"model": "m", "key": "k"}],
    ("GET", f"/v1/engines/{FAMILY}"): ENGINES,
}


@pytest.fixture
def server(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> Canned:
    """A server with long values, and a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr(table, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    canned.answers.update({request: Answer(answer) for request, answer in ANSWERS.items()})
    # The samples are new, whenever this test runs: older ones are not shown.
    samples = {"t": [time.time() + 5], "all": {}, "host": {}, "models": {UID: RATES}}
    canned.answers["GET", "/v1/stats"] = Answer(samples)
    return canned


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        (("list",), (UID, "1024 + 4096 waiting", "123456.7", "1023 GiB", "TERMINATING")),
        (("history",), (UID, "cancelled", "3 s")),
        (("keys", "list"), (KEY["name"], "revoked")),
        (("cached",), (FAMILY, "UD-Q4_K_XL", "1023.0 GiB")),
        (("catalog", "list"), (CATALOG["version"], "10000", "in use")),
        (("registrations",), (FAMILY, "10485760")),
        (("registrations", "--fits"), (FAMILY, "1023.0 GiB", "480.55B")),
        (("engine", FAMILY), ("480.55B", "Transformers", "UD-Q29_K_XL")),
        (("engine", FAMILY, "--all"), ("480.55B", "Transformers", "UD-Q29_K_XL")),
        (("usage",), (UID, "1000000000", "~1000000000000")),
        (("usage", "--by", "key,model,minute"), (KEY["name"], "1000000000")),
    ],
)
def test_a_table_with_long_values_fits_the_terminal(
    server: Canned, run: Run, command: tuple[str, ...], whole: tuple[str, ...]
) -> None:
    result = run(*command)
    assert result.exit_code == 0, result.output
    lines = click.unstyle(result.stdout).splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []
    # A value may be broken between its words, but it is complete.
    words = " ".join(lines).split()
    assert [word for value in whole for word in value.split() if word not in words and f"{word}," not in words] == []


def test_a_name_that_leaves_no_room_has_a_line_of_its_own(server: Canned, run: Run) -> None:
    lines = click.unstyle(run("list").stdout).splitlines()
    assert lines[2] == UID and lines[3].startswith(" ")
    assert lines[0].split()[0] == "UID" and [line.split()[0] for line in lines].count("m") == 1
