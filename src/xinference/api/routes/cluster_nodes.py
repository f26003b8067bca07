"""The nodes of a cluster, and the tokens with which machines join it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends

from xinference import __version__
from xinference.api import cluster_schemas
from xinference.api.dependencies import AddressDep, ControllerDep, SettingsDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.node_entries import node_entry, own_entry, token_entry
from xinference.api.ray_entries import ray_entry
from xinference.api.strict import StrictRoute
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.listener import address_for_others

if TYPE_CHECKING:
    from xinference.cluster.supervisor import Cluster
else:  # a server on one machine does not load it
    Cluster = Any

router = APIRouter(prefix="/v1/cluster", tags=["cluster"], route_class=StrictRoute, responses=ERROR_RESPONSES)


async def _cluster(controller: ControllerDep) -> Cluster:
    if controller.cluster is None:
        raise Problem(
            Code.NOT_A_CLUSTER,
            "This server has no cluster: no worker can join it.",
            hint="Start it as `xinference-supervisor`, or with `xinference serve --cluster`.",
        )
    return controller.cluster


ClusterDep = Annotated[Cluster, Depends(_cluster)]


@router.get("/join", response_model=cluster_schemas.Invitation, responses=problems(409))
async def invitation(cluster: ClusterDep) -> dict[str, Any]:
    """What a machine needs to know before it joins. It is public: a token proves the rest."""
    return {
        "supervisor": cluster.supervisor_id,
        "port": cluster.port,
        "authority": cluster.authority.decode("ascii"),
    }


@router.get("/nodes", response_model=list[cluster_schemas.ClusterNode], responses=problems(409))
async def nodes(
    cluster: ClusterDep, controller: ControllerDep, settings: SettingsDep, address: AddressDep
) -> list[dict[str, Any]]:
    """List the nodes with their states, resources and replicas. ``local`` is the supervisor's own machine."""
    own = [] if settings.no_models else [await own_entry(controller, socket.gethostname(), address, __version__)]
    return [*own, *[await node_entry(controller, cluster.members, member) for member in cluster.members]]


@router.get("/ray", response_model=cluster_schemas.RayCluster, responses=problems(409))
async def ray(cluster: ClusterDep, settings: SettingsDep) -> dict[str, Any]:
    """The Ray cluster on whose nodes this supervisor starts workers."""
    if cluster.ray is None:
        raise Problem(
            Code.NOT_ON_RAY,
            "This supervisor uses no Ray cluster.",
            hint="Start it with --ray-address auto, or with the address of Ray's head.",
        )
    return ray_entry(settings.ray_address, cluster.ray, cluster.members)


@router.post("/nodes/{node}/drain", response_model=cluster_schemas.ClusterNode, responses=problems(404, 409))
async def drain(cluster: ClusterDep, controller: ControllerDep, node: str) -> dict[str, Any]:
    """Place nothing new on a node, and move its replicas to other nodes, one by one."""
    return await node_entry(controller, cluster.members, cluster.drain(node, drained=True))


@router.post("/nodes/{node}/undrain", response_model=cluster_schemas.ClusterNode, responses=problems(404, 409))
async def undrain(cluster: ClusterDep, controller: ControllerDep, node: str) -> dict[str, Any]:
    """Allow new replicas on a node again."""
    return await node_entry(controller, cluster.members, cluster.drain(node, drained=False))


@router.post(
    "/nodes/{node}/upgrade", response_model=cluster_schemas.ClusterNode, responses=problems(404, 409, 502, 503, 504)
)
async def upgrade(cluster: ClusterDep, controller: ControllerDep, node: str) -> dict[str, Any]:
    """Restart the worker of a node, with the package that is installed there now. Its engines run on."""
    return await node_entry(controller, cluster.members, await cluster.upgrade(node))


@router.delete("/nodes/{node}", response_model=cluster_schemas.ClusterNode, responses=problems(404, 409))
async def remove(cluster: ClusterDep, controller: ControllerDep, node: str) -> dict[str, Any]:
    """Remove a node permanently: its engines are stopped, its certificate is refused, its replicas start elsewhere."""
    entry = await node_entry(controller, cluster.members, cluster.members.get(node))
    await cluster.remove(node)
    return entry


@router.post("/tokens", response_model=cluster_schemas.CreatedToken, responses=problems(409, 507))
async def create_token(
    cluster: ClusterDep, settings: SettingsDep, body: cluster_schemas.TokenBody | None = None
) -> dict[str, Any]:
    """Make a token with which machines can join."""
    asked = body or cluster_schemas.TokenBody()
    token, row = cluster.create_token(asked.hours * 3600, asked.uses)
    command = f"xinference-worker --endpoint http://HOST:{settings.port} --token {token.text}"
    return {**token_entry(row), "token": token.text, "command": command, "host": address_for_others(settings.host)}


@router.get("/tokens", response_model=list[cluster_schemas.Token], responses=problems(409))
async def tokens(cluster: ClusterDep) -> list[dict[str, Any]]:
    """List the join tokens without their secrets."""
    return [token_entry(row) for row in cluster.tokens()]


@router.delete("/tokens/{token_id}", response_model=cluster_schemas.Token, responses=problems(404, 409))
async def revoke_token(cluster: ClusterDep, token_id: str) -> dict[str, Any]:
    """Revoke a token, so that no further machine can join with it. Nodes that joined with it remain in the cluster."""
    cluster.revoke_token(token_id)
    return next(token_entry(row) for row in cluster.tokens() if row.token_id == token_id)
