"""Everything that the management API answers is in its schemas: no field is undescribed, none is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from tests.api.application import application
from tests.api.schema_check import absent, undescribed
from tests.engines.plans import launch_of, plan_of
from tests.support.cases import in_one_test
from xinference.api import catalog_schemas, host_usage, schemas, server_schemas
from xinference.api.errors import ProblemParts
from xinference.api.launch_body import LaunchBody
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.planned_launch import PlannedLaunch, planned_entry
from xinference.deployments import views
from xinference.deployments.progress import progress, unknown
from xinference.deployments.snapshot import DeploymentSnapshot, ReplicaView
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.keyring import Keyring
from xinference.launch.request import LaunchRequest
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.store.database import Store
from xinference.store.event_log import TransferProgress

SNAPSHOT = ReplicaSnapshot("r", ReplicaState.READY, 1, "http://127.0.0.1:1", "key", {}, Path("/log"), 2, 3, 4.0)
#: The fields of a replica that only a cluster has.
IN_CLUSTER = ("nodes", "node_names")
FAILED = Problem(Code.ENGINE_DIED, "It died.", stage="start", hint="Add memory.", log_tail=["out of memory"])
PLAN = planned_entry(PlannedLaunch(launch_of(options={"seed": 1}), plan_of()))
LAUNCHES = {
    "failing": LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", model_engine="llama.cpp"),
    "on-demand": LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", on_demand=True, priority=3),
}


@pytest.fixture
async def failing(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server whose deployments have failed: there are no weights, and one row can't be read."""
    settings = Settings(home=tmp_path / "home", offline=True)
    store = Store(settings.home / "x.db")
    for uid, request in LAUNCHES.items():
        store.add_deployment(uid, msgspec.json.encode(request).decode())
        store.note_ran(uid)
    store.add_deployment("broken", "{")
    controller = Controller(settings, store)
    await controller.start()
    async with asyncio.timeout(30):
        while any(deployment.problem is None for deployment in controller.deployments()):
            await asyncio.sleep(0)
    app: FastAPI = application(controller, settings, Keyring(store))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await controller.close("stop")
    store.close()


async def get(client: httpx2.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/status", server_schemas.ServerStatus),
        ("/v1/workers", list[server_schemas.Worker]),
        ("/v1/cluster/info", list[server_schemas.Node]),
        ("/v1/cluster/info?detailed=true", list[server_schemas.Node]),
        ("/v1/models/instances", list[schemas.Instance]),
        *((f"/v1/models/{uid}", schemas.Model) for uid in [*LAUNCHES, "broken"]),
        *((f"/v1/models/{uid}/progress", schemas.Progress) for uid in [*LAUNCHES, "broken", "unknown"]),
        *((f"/v1/models/{uid}/replicas", list[schemas.ReplicaAnswer]) for uid in [*LAUNCHES, "broken"]),
        ("/v1/models/failing/events", list[schemas.Event]),
        ("/v1/engines/llama-2-chat", catalog_schemas.Engines),
        ("/v1/engines/llama-2-chat?detailed=true", list[catalog_schemas.EngineRow]),
        ("/v1/models/LLM/llama-2-chat/versions", list[catalog_schemas.Version]),
        ("/v1/models/families", catalog_schemas.Abilities),
        ("/v1/models/vllm-supported", catalog_schemas.EngineModels),
        ("/v1/models/prompts", dict[str, catalog_schemas.PromptStyle]),
        ("/v1/cache/models", catalog_schemas.CachedList),
    ],
)
async def test_an_answer_has_no_field_that_its_schema_lacks(
    failing: httpx2.AsyncClient, path: str, schema: Any
) -> None:
    assert undescribed(schema, await get(failing, path)) == set()


async def test_an_instance_has_every_field_that_its_schema_has(failing: httpx2.AsyncClient) -> None:
    instances = {each["model_uid"]: each for each in await get(failing, "/v1/models/instances")}
    demand_only = {".ttl", ".pin", ".priority"}
    pooled_only = {".dimensions", ".max_tokens", ".language"}
    cluster_only = {f".{name}.[].{field}" for name in ("replicas", "replica_statuses") for field in IN_CLUSTER}
    assert absent(schemas.Instance, instances["on-demand"]) == pooled_only | cluster_only
    assert absent(schemas.Instance, instances["failing"]) == demand_only | pooled_only | cluster_only
    assert absent(schemas.Model, await get(failing, "/v1/models/on-demand")) == pooled_only | {".alias_of", ".parent"}
    for replica in await get(failing, "/v1/models/failing/replicas"):
        assert absent(schemas.ReplicaAnswer, replica) == {f".{field}" for field in IN_CLUSTER}


async def test_a_dry_run_has_exactly_the_fields_of_its_schema(empty: httpx2.AsyncClient) -> None:
    body = {"model_name": "llama-2-chat", "model_format": "ggufv2", "model_engine": "llama.cpp"}
    answer = await empty.post("/v1/models?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    assert undescribed(schemas.LaunchPlanAnswer, answer.json()) == set()
    assert absent(schemas.LaunchPlanAnswer, answer.json()) == set()


async def test_a_dry_run_has_the_warnings_of_the_launch(empty: httpx2.AsyncClient) -> None:
    body = {"model_name": "llama-2-chat", "model_format": "ggufv2", "worker_ip": "box9", "enable_virtual_env": True}
    answer = await empty.post("/v1/models?dry_run=true", json=body)
    assert answer.json()["warnings"] == LaunchBody.model_validate(body).warnings()
    assert "worker_ip box9 is ignored" in answer.text


EXACT: list[tuple[Any, Callable[[], Any]]] = [
    (schemas.LaunchPlanAnswer, lambda: PLAN),
    (
        schemas.Description,
        lambda: views.describe(
            plan_of(), LlamaCpp(), status="READY", stage="ready", addresses=["http://h:1"], created=1.0
        ),
    ),
    *(
        (
            schemas.ReplicaAnswer,
            lambda snapshot=snapshot, problem=problem: _entry(snapshot, problem),
        )
        for snapshot, problem in [(SNAPSHOT, None), (None, None), (None, FAILED)]
    ),
    (schemas.Progress, unknown),
    (
        schemas.Progress,
        lambda: progress(
            "fetch",
            None,
            TransferProgress("fetch", "w.gguf", 1, 2, 3.0),
            [_entry(SNAPSHOT, None)],
            4.0,
        ),
    ),
    (ProblemParts, FAILED.to_dict),
    (dict[str, dict[str, float | int | str]], host_usage.usage),
]


@in_one_test(("schema", "view"), EXACT)
def test_a_view_has_no_field_that_its_schema_lacks(schema: Any, view: Callable[[], Any]) -> None:
    assert undescribed(schema, view()) == set()


def test_every_status_of_a_view_is_in_the_schema() -> None:
    assert set(views.STATUSES.values()) <= set(get_args(schemas.Status))


def test_the_check_finds_a_field_too_much_and_one_too_few() -> None:
    plan = PLAN
    assert undescribed(schemas.LaunchPlanAnswer, plan | {"command": []}) == {".command"}
    assert undescribed(list[schemas.LaunchPlanAnswer], [plan | {"memory": plan["memory"] | {"x": 1}}]) == {
        ".[].memory.x"
    }
    assert absent(schemas.ReplicaAnswer, {**_replica(), "engine_pid": 1}) == {
        ".keeper_pid",
        *(f".{field}" for field in IN_CLUSTER),
    }


def _replica() -> dict[str, Any]:
    return {name: value for name, value in _entry(SNAPSHOT, None).items() if name != "keeper_pid"}


def _entry(snapshot: ReplicaSnapshot | None, problem: Problem | None) -> dict[str, Any]:
    """The view of a replica with this process."""
    replicas = (ReplicaView(0, snapshot, problem=problem),)
    (entry,) = views.replica_entries(DeploymentSnapshot("mine", plan_of(), created=1.0, replicas=replicas))
    return entry
