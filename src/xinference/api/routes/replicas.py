"""The replicas of a deployment: look at them, add and remove them while it runs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import schemas
from xinference.api.dependencies import AddressDep, ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import Count, ReplicaConfig, Text
from xinference.api.strict import StrictRoute
from xinference.deployments.deployment import Deployment
from xinference.errors import bad_request
from xinference.planning.plan import MAX_REPLICAS

router = APIRouter(
    prefix="/v1/models/{model_uid}/replicas", tags=["replicas"], route_class=StrictRoute, responses=ERROR_RESPONSES
)


class ReplicaBody(BaseModel):
    """What to add: replicas of the same size and engine as the others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    replica_config: ReplicaConfig | list[ReplicaConfig] | None = None
    replica: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    model_engine: Text | None = Field(default=None, description="The engine that the model has")
    n_gpu: Count | Literal["auto"] | None = Field(default=None, description="What the model was launched with")

    def configs(self) -> list[ReplicaConfig]:
        """One for each replica."""
        config = self.replica_config
        if config is None:
            return [ReplicaConfig()] * self.replica
        return config if isinstance(config, list) else [config] * self.replica


@router.get("", response_model=list[schemas.ReplicaAnswer], responses=problems(404))
async def replicas(controller: ControllerDep, address: AddressDep, model_uid: str) -> list[dict[str, Any]]:
    """Every replica that there should be, also those that load or have failed."""
    return [replica | {"worker_address": address} for replica in controller.deployment(model_uid).replicas]


@router.post(
    "",
    response_model=schemas.AddedReplica | schemas.AddedReplicas,
    responses=problems(404, 409, 413, 502, 503, 507),
)
async def add(
    controller: ControllerDep,
    address: AddressDep,
    model_uid: str,
    body: ReplicaBody | None = None,
    wait_ready: bool = True,
) -> dict[str, Any]:
    """Add replicas; with `wait_ready` once they can be asked. One whose first start fails is taken back."""
    body = body or ReplicaBody()
    deployment = controller.running(model_uid)
    _check(body, deployment)
    added = []
    for config in body.configs():
        number = await deployment.scaler.add(config.indices, wait_ready=wait_ready)
        entry = {
            "replica_id": number,
            "replica_model_uid": f"{model_uid}-rep{number}",
            "worker_address": address,
        }
        added.append(entry)
    return added[0] if len(added) == 1 else {"replica": len(added), "replicas": added}


@router.delete("/{replica_id}", response_model=schemas.Remaining, responses=problems(404, 409))
async def remove(controller: ControllerDep, model_uid: str, replica_id: int) -> dict[str, int]:
    """End one replica, after the answers it has begun; the model keeps at least one."""
    return {"remaining_replicas": await controller.running(model_uid).scaler.remove(replica_id)}


def _check(body: ReplicaBody, deployment: Deployment) -> None:
    """Refuse a replica that would differ from the others."""
    plan = deployment.plan
    if body.model_engine is not None and body.model_engine.strip().lower() != plan.engine.lower():
        raise bad_request(
            f"{plan.uid} runs on {plan.engine}, and all its replicas do; {body.model_engine!r} was asked for.",
            hint="Launch it on the other engine under another --model-uid.",
        )
    same = body.n_gpu in (None, "auto", plan.request.n_gpu) or (body.n_gpu == 0 and not plan.use_gpu)
    if not same:
        raise bad_request(
            f"{plan.uid} was launched with n_gpu {plan.request.n_gpu}, and a replica more takes the same.",
            hint="Leave n_gpu out; replica_config names the very devices.",
        )
