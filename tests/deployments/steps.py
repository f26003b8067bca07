"""Steps of the tests of deployments: a launch until it is ready, and what an earlier server left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tests.deployments.doubles import SIZING, World, turns
from xinference.deployments.deployment import Deployment
from xinference.deployments.preparation import Weights
from xinference.deployments.snapshot import Status


async def launched(world: World, **request: Any) -> Deployment:
    """A deployment whose replicas all answer."""
    world.starter.instant = True
    deployment = world.add(**request)
    await turns()
    assert deployment.ready and deployment.status is Status.READY
    return deployment


def statuses(deployment: Deployment) -> list[str]:
    return [replica["status"] for replica in deployment.replicas]


def leave_running(world: World, uid: str = "one", number: int = 0, replica_id: str = "r0") -> None:
    """Leave a running replica, as an earlier server does that has ended."""
    if not world.store.deployments():
        world.store.add_deployment(uid, "{}")
    world.store.add_replica(replica_id, uid, number)
    sizing = msgspec.structs.asdict(SIZING)
    world.starter.left[replica_id] = {"uid": uid, "path": "w", "sizing": sizing, "devices": []}


def large(world: World) -> Callable[..., Any]:
    """Reads the weights of a launch as if they fitted nowhere."""
    given = world.preparation.read_weights

    async def read(launch: Any, path: Path | None = None) -> Weights:
        weights = await given(launch, path)
        return replace(weights, shape=msgspec.structs.replace(weights.shape, weights_bytes=1 << 40))

    return read
