"""The requests of the clients about the nodes of a cluster, and about the tokens with which machines join it."""

from __future__ import annotations

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, path


def cluster_nodes() -> Request[list[Json]]:
    """The nodes of the cluster with their states and resources."""
    return Request(path="/v1/cluster/nodes", read=answers.as_objects)


def ray_cluster() -> Request[Json]:
    """The Ray cluster on whose nodes the supervisor starts workers."""
    return Request(path="/v1/cluster/ray", read=answers.as_object)


def drain_node(node: str) -> Request[Json]:
    """Place nothing new on a node, and move its replicas one by one; `node` is an id, a name or an address."""
    return Request(method="POST", path=path("v1", "cluster", "nodes", node, "drain"), read=answers.as_object)


def undrain_node(node: str) -> Request[Json]:
    """Allow new replicas on a node again."""
    return Request(method="POST", path=path("v1", "cluster", "nodes", node, "undrain"), read=answers.as_object)


def upgrade_node(node: str) -> Request[Json]:
    """Restart the worker of a node, and wait until the node is ready again; its engines run on."""
    return Request(
        method="POST",
        path=path("v1", "cluster", "nodes", node, "upgrade"),
        read=answers.as_object,
        without_timeout=True,
    )


def remove_node(node: str) -> Request[Json]:
    """Remove a node from the cluster permanently."""
    return Request(method="DELETE", path=path("v1", "cluster", "nodes", node), read=answers.as_object)


def create_join_token(hours: float = 24.0, uses: int | None = 1) -> Request[Json]:
    """Make a token with which machines can join; `uses` None: any number of them."""
    body = {"hours": hours, "uses": uses}
    return Request(method="POST", path="/v1/cluster/tokens", body=body, read=answers.as_object)


def list_join_tokens() -> Request[list[Json]]:
    """The join tokens without their secrets."""
    return Request(path="/v1/cluster/tokens", read=answers.as_objects)


def revoke_join_token(token_id: str) -> Request[Json]:
    """Revoke a token: no further machine can join with it."""
    return Request(method="DELETE", path=path("v1", "cluster", "tokens", token_id), read=answers.as_object)
