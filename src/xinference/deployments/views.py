"""The REST entries and the route of a deployment, made from its snapshot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.deployments.snapshot import DeploymentSnapshot, OnDemandTerms, ReplicaView, Residency, Status
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE, node_name
from xinference.launch.place import Place
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.process.log_links import replica_name
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.table import Route, Target


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
        **_pooling_fields(plan),
        "replica": plan.request.replica,
        "aliases": list(plan.request.aliases),
        "max_output_tokens": plan.request.max_output_tokens,
        "max_request_seconds": plan.request.max_request_seconds,
        "address": addresses[0] if addresses else None,
        "accelerators": sorted({str(index) for group in (sized.devices if sized else ()) for index in group}),
        "status": status,
        "stage": stage,
        "instance_created_ts": int(created),
    }


def _pooling_fields(plan: LaunchPlan) -> dict[str, Any]:
    """The fields that older clients read of embedding models and rerankers."""
    family = plan.version.family
    if family.model_type == "LLM":
        return {}
    fields = {"max_tokens": _context_length(plan), "language": list(family.model_lang)}
    return fields | ({"dimensions": family.dimensions} if family.model_type == "embedding" else {})


def _context_length(plan: LaunchPlan) -> int:
    """The context length in tokens: that of the sized plan, or that of the family before the plan is sized."""
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


def alias_entry(alias: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an alias in OpenAI's model list, made from that of its deployment."""
    return {**entry, "id": alias, "alias_of": entry["model_uid"]}


#: The API's status of each replica state.
STATUSES = {
    ReplicaState.NEW: Status.LOADING,
    ReplicaState.STARTING: Status.LOADING,
    ReplicaState.READY: Status.READY,
    ReplicaState.STOPPING: Status.TERMINATING,
    ReplicaState.EXITED: Status.TERMINATED,
}


def description(deployment: DeploymentSnapshot, engine: Engine) -> dict[str, Any]:
    """The entry of a deployment in ``GET /v1/models``."""
    addresses = [process.base_url for process in deployment.running if process.base_url]
    described = describe(
        deployment.plan,
        engine,
        status=deployment.status,
        stage=deployment.stage,
        addresses=addresses,
        created=deployment.created,
    )
    used = deployment.used
    return {
        **described,
        "memory_used_bytes": used.memory if used else None,
        "gpu_memory_used_bytes": used.gpu_memory if used else None,
        **_on_demand(deployment.terms),
    }


def instance(deployment: DeploymentSnapshot, engine: Engine) -> dict[str, Any]:
    """The entry of a deployment in ``GET /v1/models/instances``."""
    entries = replica_entries(deployment)
    return {
        **description(deployment, engine),
        "model_version": deployment.plan.version.version_id,
        "n_worker": deployment.plan.request.n_worker,
        "problem": deployment.problem.to_dict() if deployment.problem else None,
        "slots": deployment.sized.sizing.slots if deployment.sized else None,
        "planned_memory_bytes": deployment.sized.sizing.total_bytes if deployment.sized else None,
        "adapters": list(engine.lora_names(deployment.plan)),
        "replicas": entries,
        "replica_statuses": entries,
    }


def replica_entries(deployment: DeploymentSnapshot) -> list[dict[str, Any]]:
    """The entries of all replicas in ``GET /v1/models/{uid}/replicas``, sorted by number."""
    return [_replica_entry(deployment, replica) for replica in deployment.replicas]


def route(deployment: DeploymentSnapshot, engine: Engine) -> Route:
    """The deployment's row of the routing table."""
    on_demand, plan, family = deployment.residency is not None, deployment.plan, deployment.plan.version.family
    active = deployment.problem is None and (deployment.restarting or not deployment.ending)
    return Route(
        uid=deployment.uid,
        engine=plan.engine,
        model_type=family.model_type,
        model_name=family.model_name,
        context_length=_context_length(plan),
        created=deployment.created,
        targets=() if deployment.residency is Residency.DRAINING or deployment.unloaded else _targets(deployment),
        stage=deployment.stage,
        recovering=not on_demand and active and _is_recovering(deployment),
        unloaded=deployment.unloaded and not deployment.restarting,
        on_demand=on_demand and active,
        problem=deployment.problem,
        paths=engine.paths(plan),
        adapters=engine.lora_names(plan),
        aliases=plan.request.aliases,
        request_limits=plan.request.request_limits,
        max_output_tokens=plan.request.max_output_tokens,
        max_request_seconds=plan.request.max_request_seconds,
        slots=deployment.sized.sizing.slots if deployment.sized else 0,
        stop=family.stop_texts,
        stop_token_ids=family.stop_token_ids,
        tools_refused=engine.tool_refusal(plan) if family.model_type == "LLM" else None,
        crashes=deployment.crashes,
        state_bytes=deployment.sized.sizing.state_bytes if deployment.sized else 0,
    )


def _is_recovering(deployment: DeploymentSnapshot) -> bool:
    return deployment.restarting or (deployment.was_ready and not deployment.unloaded)


def _on_demand(terms: OnDemandTerms | None) -> dict[str, Any]:
    if terms is None:
        return {"on_demand": False}
    return {"on_demand": True, "ttl": terms.ttl, "pin": terms.pinned, "priority": terms.priority}


def _replica_entry(deployment: DeploymentSnapshot, replica: ReplicaView) -> dict[str, Any]:
    plan, process = deployment.plan, replica.process
    place = deployment.sized.place_of(replica.number) if deployment.sized else Place()
    devices = place.devices
    problem = replica.problem or deployment.problem
    started = process.started_at if process else None
    return {
        "replica_id": replica.number,
        "replica_model_uid": replica_name(plan.uid, replica.number),
        "replica_uid": process.replica_id if process else None,
        "worker_address": None,
        "node": process.node_id if process else place.node_id,
        **({"nodes": list(place.nodes)} if place.ranks else {}),
        "model_address": process.base_url if process else None,
        "address": process.base_url if process else None,
        "accelerators": [str(index) for index in devices],
        "gpu_idx": list(devices),
        "status": _replica_status(deployment, replica, problem),
        "created_ts": int(started or deployment.created),
        "error_message": _why_not_running(replica, problem) if process is None else None,
        "engine_pid": process.engine_pid if process else None,
        "keeper_pid": process.keeper_pid if process else None,
    }


def _why_not_running(replica: ReplicaView, problem: Problem | None) -> str | None:
    if problem is not None:
        return str(problem)
    return None if replica.waits is None else f"waits: {replica.waits.cause}"


def _replica_status(deployment: DeploymentSnapshot, replica: ReplicaView, problem: Problem | None) -> Status:
    if replica.removing:
        return Status.TERMINATING
    if replica.process is not None:
        return STATUSES[replica.process.state]
    if problem is not None:
        return Status.ERROR
    if deployment.unloaded or (deployment.residency is not None and not deployment.residency.holds_memory):
        return Status.UNLOADED
    return Status.RECOVERING if deployment.was_ready else Status.CREATING


def _target(process: ReplicaSnapshot) -> Target:
    """How the gateway reaches a replica. The front door of another node has the engine's key, and no other does."""
    if process.node_id == LOCAL_NODE or not process.base_url.startswith("https:"):
        return Target(process.replica_id, process.base_url, process.api_key)
    return Target(process.replica_id, process.base_url, "", node_name(process.node_id))


def _targets(deployment: DeploymentSnapshot) -> tuple[Target, ...]:
    """The replicas that are ready and are not being removed."""
    return tuple(
        _target(replica.process)
        for replica in deployment.replicas
        if replica.ready and replica.process is not None and replica.process.base_url and not replica.removing
    )
