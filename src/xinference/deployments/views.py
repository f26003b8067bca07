"""A deployment in the words of the API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xinference.deployments.state import DeploymentState
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.table import Route, Target

if TYPE_CHECKING:
    from xinference.deployments.replica_set import ReplicaSet


def describe(
    plan: LaunchPlan, engine: Engine, *, status: str, stage: str, addresses: list[str], created: float
) -> dict[str, Any]:
    """The model's entry in ``GET /v1/models`` without its ``id``."""
    family, spec = plan.version.family, plan.version.spec
    sized = plan if isinstance(plan, SizedPlan) else None
    return {
        "model_uid": plan.uid,
        "model_type": family.model_type,
        "model_name": family.model_name,
        "model_engine": plan.engine,
        "model_format": spec.model_format,
        "model_size_in_billions": spec.model_size_in_billions,
        "quantization": plan.version.quantization,
        "model_family": family.model_name,
        "model_lang": list(family.model_lang),
        "model_ability": list(engine.abilities(plan)),
        "model_description": family.model_description,
        "model_hub": plan.source.hub if plan.source else "local",
        "revision": plan.source.revision if plan.source else None,
        "context_length": _context_length(plan),
        "replica": plan.request.replica,
        "address": addresses[0] if addresses else None,
        "accelerators": sorted({str(index) for group in (sized.devices if sized else ()) for index in group}),
        "status": status,
        "stage": stage,
        "instance_created_ts": int(created),
    }


def _context_length(plan: LaunchPlan) -> int:
    """Tokens of the longest prompt; the family's number until the plan is sized."""
    return plan.sizing.context_length if isinstance(plan, SizedPlan) else plan.version.family.context_length


def listing_entry(uid: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment's description as an entry of OpenAI's model list."""
    return {
        "id": uid,
        "object": "model",
        "created": description["instance_created_ts"],
        "owned_by": "xinference",
        **description,
    }


#: A replica's states in the words of the API.
STATUSES = {
    ReplicaState.NEW: "LOADING",
    ReplicaState.STARTING: "LOADING",
    ReplicaState.READY: "READY",
    ReplicaState.STOPPING: "TERMINATING",
    ReplicaState.EXITED: "TERMINATED",
}


def replica_entry(
    plan: LaunchPlan,
    number: int,
    snapshot: ReplicaSnapshot | None,
    *,
    waiting: str,
    problem: Problem | None,
    created: float,
    leaving: bool = False,
) -> dict[str, Any]:
    """One replica in ``GET /v1/models/{uid}/replicas``; `waiting` is its status while it has no process."""
    devices = plan.devices_of(number) if isinstance(plan, SizedPlan) else ()
    status = (
        "TERMINATING"
        if leaving
        else ("ERROR" if problem else waiting)
        if snapshot is None
        else STATUSES[snapshot.state]
    )
    started = snapshot.started_at if snapshot else None
    return {
        "replica_id": number,
        "replica_model_uid": f"{plan.uid}-rep{number}",
        "replica_uid": snapshot.replica_id if snapshot else None,
        "worker_address": None,
        "model_address": snapshot.base_url if snapshot else None,
        "address": snapshot.base_url if snapshot else None,
        "accelerators": [str(index) for index in devices],
        "gpu_idx": list(devices),
        "status": status,
        "created_ts": int(started or created),
        "error_message": str(problem) if problem and snapshot is None else None,
        "engine_pid": snapshot.engine_pid if snapshot else None,
        "keeper_pid": snapshot.keeper_pid if snapshot else None,
    }


def description(state: DeploymentState, replicas: ReplicaSet) -> dict[str, Any]:
    """Its entry in ``GET /v1/models``."""
    described = describe(
        *(state.plan, state.engine),
        status=state.status,
        stage=state.stage,
        addresses=replicas.addresses,
        created=state.created,
    )
    used = state.used
    return {
        **described,
        "memory_used_bytes": used.memory if used else None,
        "gpu_memory_used_bytes": used.gpu_memory if used else None,
        **(state.on_demand.description if state.on_demand else {"on_demand": False}),
    }


def instance(state: DeploymentState, replicas: ReplicaSet) -> dict[str, Any]:
    """Its entry in ``GET /v1/models/instances``."""
    entries = replica_entries(state, replicas)
    return {
        **description(state, replicas),
        "model_version": state.plan.version.version_id,
        "n_worker": 1,
        "problem": state.problem.to_dict() if state.problem else None,
        "replicas": entries,
        "replica_statuses": entries,
    }


def replica_entries(state: DeploymentState, replicas: ReplicaSet) -> list[dict[str, Any]]:
    """Every replica that there should be, by its number."""
    waiting = "ERROR" if state.problem else "RECOVERING" if state.was_ready else "CREATING"
    if state.on_demand is not None and not state.on_demand.granted and state.problem is None:
        waiting = "UNLOADED"
    return [
        replica_entry(
            state.plan,
            number,
            replicas.running[number].snapshot if number in replicas.running else None,
            waiting=waiting,
            problem=replicas.lost.get(number) or state.problem,
            created=state.created,
            leaving=number in replicas.leaving,
        )
        for number in replicas.numbers
    ]


def route(state: DeploymentState, replicas: ReplicaSet) -> Route:
    """The deployment's row of the routing table."""
    demand, plan, family = state.on_demand, state.plan, state.plan.version.family
    wanted = state.problem is None and state.ending is None
    return Route(
        uid=state.uid,
        engine=plan.engine,
        model_type=family.model_type,
        model_name=family.model_name,
        context_length=_context_length(plan),
        created=state.created,
        targets=() if demand is not None and demand.leaving is not None else _targets(replicas),
        stage=state.stage,
        recovering=demand is None and state.was_ready and wanted,
        on_demand=demand is not None and wanted,
        problem=state.problem,
        paths=state.engine.paths(plan),
        adapters=state.engine.lora_names(plan),
        request_limits=plan.request.request_limits,
        stop=family.stop_texts,
        stop_token_ids=family.stop_token_ids,
    )


def _targets(replicas: ReplicaSet) -> tuple[Target, ...]:
    """Those that answer and stay."""
    return tuple(
        Target(r.snapshot.replica_id, r.snapshot.base_url, r.snapshot.api_key)
        for number, r in sorted(replicas.running.items())
        if r.snapshot.state is ReplicaState.READY and r.snapshot.base_url and number not in replicas.leaving
    )
