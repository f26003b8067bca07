"""The routes that unload, load, restart and reload a model, and the history of launches."""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from tests.control.test_controller import DIED, add_row
from xinference.control.controller import Controller
from xinference.launch.request import LaunchRequest


@pytest.mark.parametrize("word", ["unload", "load", "restart", "reload"])
async def test_what_is_not_there_is_a_404(empty: httpx2.AsyncClient, word: str) -> None:
    answer = await empty.post(f"/v1/models/nope/{word}", json={"model_config": {"a": 1}})
    assert answer.status_code == 404 and "nope" in answer.json()["detail"]


async def test_a_failed_model_has_nothing_to_unload_and_is_described(
    app: FastAPI, empty: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller: Controller = app.state.controller

    async def types(engine: str) -> dict[str, str]:
        return {"n_ctx": "int"}

    monkeypatch.setattr(controller.planner.option_tables, "types", types)
    add_row(controller._store, "m", DIED)
    await controller.start()
    answer = await empty.post("/v1/models/m/unload")
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (200, "m", "ERROR")
    status = await empty.get("/v1/models/m/reload")
    assert status.json() == {"status": "idle", "stage": "failed", "error": None}
    config = (await empty.get("/v1/models/m/reload/config")).json()
    assert config == {
        "enabled": True,
        "engine": "llama.cpp",
        "model_config": {},
        "parameters": {"n_ctx": "int"},
        "hot_parameters": [],
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_config": {}},
        {"model_config": {"a": 1}, "drain_timeout": 0},
        {"model_config": {"a": 1}, "drain_timeout": 3601},
        {"model_config": {"a": 1}, "python_executable": "/usr/bin/python"},
        {"model_config": {"a": 1}, "other": 1},
    ],
)
async def test_a_reload_that_makes_no_sense_is_a_400(
    app: FastAPI, empty: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    controller: Controller = app.state.controller
    add_row(controller._store, "m", DIED)
    await controller.start()
    assert (await empty.post("/v1/models/m/reload", json=body)).status_code == 400


async def test_the_history_has_the_launch_as_a_body_and_hides_the_values_of_variables(
    app: FastAPI, empty: httpx2.AsyncClient
) -> None:
    history = app.state.controller.history
    request = LaunchRequest(
        model_name="llama-2-chat", model_uid="m", asked_name="org/repo", quantization="Q4_0",
        envs={"HF_TOKEN": "secret"}, options={"n_ctx": 512}, asked={"model_name": "org/repo"},
    )  # fmt: skip
    history.begun("m", msgspec.json.encode(request).decode(), 5.0)
    history.ended("m", DIED)
    history.begun("damaged", "no JSON", 6.0)
    history.ended("damaged")
    answer = await empty.get("/v1/launch_history")
    damaged, failed = answer.json()
    assert failed["data"] == {
        "model_name": "org/repo", "model_uid": "m", "quantization": "Q4_0", "n_ctx": 512, "envs": {"HF_TOKEN": "***"},
    }  # fmt: skip
    assert "secret" not in answer.text
    assert (failed["status"], failed["created_at"], failed["problem"]["code"]) == (
        "failed", "1970-01-01T00:00:05Z", "engine_died",
    )  # fmt: skip
    assert (damaged["status"], damaged["model_name"], damaged["ready_at"]) == ("cancelled", "damaged", None)
    assert [r["model_uid"] for r in (await empty.get("/v1/launch_history?failed=true")).json()] == ["m"]
    assert (await empty.get("/v1/launch_history?model_name=org/repo")).json() == [failed]
    assert (await empty.get("/v1/launch_history?model_name=other")).json() == []
