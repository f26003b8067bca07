"""The metrics of the engines: for Prometheus, and those of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from xinference.api.dependencies import ControllerDep, EngineScraperDep
from xinference.api.engine_schemas import EngineReplica
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.replica_nodes import names_of
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.control.node_facts import node_names
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.engines.engine_metrics import EngineFigures

router = APIRouter(tags=["metrics"], route_class=StrictRoute, responses=ERROR_RESPONSES)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics/engines", response_class=PlainTextResponse)
async def engines(scraper: EngineScraperDep) -> PlainTextResponse:
    """The metrics of all engines under their own names, and one common set, in Prometheus' text format."""
    return PlainTextResponse(await scraper.text(), media_type=CONTENT_TYPE)


@router.get(
    "/v1/models/{model_uid}/engine", response_model=list[EngineReplica], responses=problems(404), tags=["models"]
)
async def engine(controller: ControllerDep, scraper: EngineScraperDep, model_uid: str) -> list[dict[str, Any]]:
    """The figures of a model's engine: an entry for each replica that answers requests; at most 2 s old."""
    uid = controller.uid_of(model_uid)
    deployment = controller.deployment(uid)
    if isinstance(deployment, BrokenDeployment):
        return []
    known = {each.replica: each for each in await scraper.replicas() if each.model == uid}
    listed = {each["replica_id"]: each for each in deployment.replicas}
    entries = []
    for replica in deployment.snapshot.replicas:
        found = known.get(replica.process.replica_id) if replica.process is not None else None
        if found is not None:
            names = _nodes(controller, listed[replica.number]) | {
                "replica": replica.number,
                "replica_id": found.replica,
                "engine": found.engine,
            }
            figures = asdict(found.figures or EngineFigures())
            entries.append(names | figures | {"problem": found.problem or None})
    return entries


def _nodes(controller: Controller, replica: Mapping[str, Any]) -> dict[str, Any]:
    """The machine of a replica's entry and, in a cluster, the names of all its machines."""
    names = names_of(controller)
    node = {"node": replica["node"]}
    return node | {"node_names": node_names(replica, names)} if names else node
