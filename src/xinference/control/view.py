"""A deployment as others see it: its entries in the API, and its route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xinference.control.describe import describe, replica_entry
from xinference.control.state import DeploymentState
from xinference.process.snapshot import ReplicaState
from xinference.routing.table import Route, Target

if TYPE_CHECKING:
    from xinference.control.replica_set import ReplicaSet


def description(state: DeploymentState, replicas: ReplicaSet) -> dict[str, Any]:
    """Its entry in ``GET /v1/models``."""
    described = describe(
        state.plan, status=state.status, stage=state.stage, addresses=replicas.addresses, created=state.created
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
    """What the gateway is told of it."""
    demand = state.on_demand
    wanted = state.problem is None and state.ending is None
    return Route(
        uid=state.uid,
        targets=() if demand is not None and demand.leaving is not None else _targets(replicas),
        stage=state.stage,
        recovering=demand is None and state.was_ready and wanted,
        on_demand=demand is not None and wanted,
        problem=state.problem,
        paths=state.engine.paths(state.plan),
        description=description(state, replicas),
        adapters=state.engine.lora_names(state.plan),
        request_limits=state.plan.request.request_limits,
        stop=state.plan.version.family.stop_texts,
        stop_token_ids=state.plan.version.family.stop_token_ids,
    )


def _targets(replicas: ReplicaSet) -> tuple[Target, ...]:
    """Those that answer and stay."""
    return tuple(
        Target(r.snapshot.replica_id, r.snapshot.base_url, r.snapshot.api_key)
        for number, r in sorted(replicas.running.items())
        if r.snapshot.state is ReplicaState.READY and r.snapshot.base_url and number not in replicas.leaving
    )
