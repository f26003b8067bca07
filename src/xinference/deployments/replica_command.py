"""The command of a replica, and the size of a running replica by the context that its command has stored."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from xinference.engines.base import Engine
from xinference.engines.replica_placement import Placement, Rank
from xinference.hosts import LOCAL_NODE
from xinference.launch.launch_context import encode_launch
from xinference.launch.place import Place, Places, shortest
from xinference.launch.plan import LaunchPlan, SizedPlan, Sizing
from xinference.nodes.engine_guard import guard_context
from xinference.planning import replicas
from xinference.process.command import EngineCommand


def engine_command(
    engine: Engine,
    plan: SizedPlan,
    number: int,
    python: Path,
    states: Path | None = None,
    rank: tuple[Rank, tuple[int, ...]] | None = None,
) -> EngineCommand:
    """The command of the replica with this number. Its context is the input of `restore_sizing`.

    Args:
        states: the folder for saved states of prompts.
        rank: the rank whose command it is, with its devices; None: one node computes the replica.
    """
    if rank is None:
        placement = Placement(python, plan.devices_of(number), states)
    else:
        placement = Placement(python, rank[1], rank=rank[0])
    command = engine.command(plan, secrets.token_urlsafe(32), placement)
    sizing, devices = msgspec.structs.asdict(plan.sizing), plan.devices
    context = {
        "uid": plan.uid,
        "path": str(plan.path),
        "sizing": sizing,
        "writes_calls": plan.writes_calls,
        "devices": devices,
        "nodes": [place.node_id for place in plan.places],
        "ranks": [[[rank.node_id, rank.devices] for rank in place.ranks] for place in plan.places],
        "launch": encode_launch(plan),
        "guard": guard_context(plan, command),
    }
    # The variables of the engine override those of the user: they set its key, its devices and its offline mode.
    env = {**plan.request.envs, **command.env}
    return EngineCommand(**{**vars(command), "env": env, "context": context})


def restore_sizing(plan: LaunchPlan, number: int, context: Mapping[str, Any]) -> LaunchPlan:
    """The plan with the size and devices that the running engine was started with, read from its context."""
    try:
        sizing = Sizing(**{**context["sizing"], "reasons": ()})
        path, reported = Path(context["path"]), _stored_places(context)
    except (KeyError, TypeError):
        return plan  # another release wrote the context: the launch is sized again, and only a restart uses that size
    launch, adopted = (plan.launch, plan.places) if isinstance(plan, SizedPlan) else (plan, ())
    places, writes_calls = replicas.merge_places(adopted, reported, number), context.get("writes_calls")
    return SizedPlan(launch, path, sizing, places, writes_calls=writes_calls)


def _stored_places(context: Mapping[str, Any]) -> Places:
    """The places in the context of a running engine; an earlier release stored no nodes."""
    devices = [tuple(group) for group in context["devices"]]
    nodes: list[str] = list(context.get("nodes", ()))
    ranks = [tuple(Place(node, tuple(group)) for node, group in listed) for listed in context.get("ranks", ())]
    size = max(len(devices), len(nodes))
    devices += [()] * (size - len(devices))
    nodes += [LOCAL_NODE] * (size - len(nodes))
    ranks += [()] * (size - len(ranks))
    return shortest(Place(*place) for place in zip(nodes, devices, ranks, strict=True))
