"""The replicas of a deployment: listing, adding and removing them while it runs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import schemas
from xinference.api.dependencies import AddressDep, ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.launch_body import IGNORED_NODES, Count, ReplicaConfig, Text
from xinference.api.replica_nodes import with_machine
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.deployments.deployment import Deployment
from xinference.engines.registry import all_engines
from xinference.errors import bad_request
from xinference.planning.plan import MAX_REPLICAS
from xinference.process.log_links import replica_name

router = APIRouter(
    prefix="/v1/models/{model_uid}/replicas", tags=["replicas"], route_class=StrictRoute, responses=ERROR_RESPONSES
)


class ReplicaBody(BaseModel):
    """The replicas to add. They have the size and the engine of the others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    replica_config: ReplicaConfig | list[ReplicaConfig] | None = None
    replica: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    model_engine: Text | None = Field(default=None, description="Must be the engine of the model")
    n_gpu: Count | Literal["auto"] | None = Field(
        default=None, description="Must be the value that the model was launched with"
    )

    def configs(self) -> list[ReplicaConfig]:
        """One configuration for each replica."""
        config = self.replica_config
        if config is None:
            return [ReplicaConfig()] * self.replica
        return config if isinstance(config, list) else [config] * self.replica


@router.get("", response_model=list[schemas.ReplicaAnswer], response_model_exclude_unset=True, responses=problems(404))
async def replicas(controller: ControllerDep, address: AddressDep, model_uid: str) -> list[dict[str, Any]]:
    """List the replicas, including loading and failed ones."""
    return [with_machine(controller, replica, address) for replica in controller.deployment(model_uid).replicas]


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
    """Add replicas; with `wait_ready` answer when they are ready. One that fails to start is removed again."""
    body = body or ReplicaBody()
    deployment = controller.running(model_uid)
    _check(body, deployment)
    _check_nodes(body, controller, model_uid)
    added = []
    for config in body.configs():
        adding = deployment.add_replica(config.indices, wait_ready=wait_ready)
        number = await controller.stop_notice.unless_given(adding)
        entry = {
            "replica_id": number,
            "replica_model_uid": replica_name(model_uid, number),
            "worker_address": address,
        }
        added.append(entry)
    return added[0] if len(added) == 1 else {"replica": len(added), "replicas": added}


@router.delete("/{replica_id}", response_model=schemas.Remaining, responses=problems(404, 409))
async def remove(controller: ControllerDep, model_uid: str, replica_id: int) -> dict[str, int]:
    """Remove a replica after its running requests have ended; the last one can't be removed."""
    return {"remaining_replicas": await controller.running(model_uid).remove_replica(replica_id)}


def _check_nodes(body: ReplicaBody, controller: Controller, uid: str) -> None:
    """Reject a node for the new replicas in a cluster; on one machine, it is ignored with a warning, as by a launch."""
    if not any(device.worker_ip for config in body.configs() for device in config.devices):
        return
    if controller.is_cluster:
        raise bad_request(
            "replica_config: worker_ip can't choose the machine of a further replica; its launch chooses the machines.",
            hint=f"Leave out worker_ip: the replica gets a machine that the launch of {uid} permits.",
        )
    controller.event_log.add(uid, "WARNING", "plan", IGNORED_NODES)


def _check(body: ReplicaBody, deployment: Deployment) -> None:
    """Reject a replica that would differ from the others."""
    plan = deployment.plan
    if body.model_engine is not None and not all_engines()[plan.engine].table.has_name(body.model_engine):
        raise bad_request(
            f"All replicas of {plan.uid} run on {plan.engine}, not on {body.model_engine!r}.",
            hint="Launch the model on the other engine with another --model-uid.",
        )
    same = body.n_gpu in (None, "auto", plan.request.n_gpu) or (body.n_gpu == 0 and not plan.use_gpu)
    if not same:
        raise bad_request(
            f"All replicas of {plan.uid} use n_gpu {plan.request.n_gpu}, with which it was launched.",
            hint="Leave out n_gpu; `replica_config` can name the devices.",
        )
