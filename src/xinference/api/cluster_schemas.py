"""The bodies and answers of the routes about the nodes of a cluster and its join tokens."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from xinference.api.schemas import Answer


class Invitation(Answer):
    """What a machine needs to know before it joins; public."""

    supervisor: str
    port: int
    authority: str = Field(description="The certificate of the cluster's authority, as PEM")


class NodeGpu(Answer):
    """A GPU of a node; bytes."""

    index: int
    name: str
    memory_total: int
    memory_free: int


class ClusterNode(Answer):
    """One machine of the cluster; bytes and seconds."""

    node_id: str
    name: str
    address: str | None = Field(description="`host:port` of its data port; null: it has not said hello to this server")
    state: str
    labels: dict[str, str]
    version: str | None
    serves: str | None = Field(description="`host:port` at which it takes requests of clients; null: it takes none")
    lost_in: float | None = Field(
        description="Seconds until its replicas are started on other nodes; null: its link works"
    )
    cpu_count: int | None
    memory_total: int | None
    memory_available: int | None
    gpus: list[NodeGpu]
    replicas: list[str] = Field(description="The names of the replicas that run on it")


class TokenBody(BaseModel):
    """How long a token is valid, and for how many machines."""

    model_config = ConfigDict(extra="forbid")

    hours: float = Field(default=24.0, gt=0, le=24 * 365)
    uses: int | None = Field(default=1, ge=1, le=100_000, description="null: any number of machines")


class Token(Answer):
    """A join token without its secret."""

    token_id: str
    expires: float = Field(description="Seconds since the epoch")
    uses_left: int | None
    revoked: bool


class CreatedToken(Token):
    """A new join token. The server does not keep its secret."""

    token: str
    command: str = Field(description="The command that joins a machine; HOST is the supervisor's address")
    host: str | None = Field(description="The supervisor's address for other machines; null: it is not known")


class RayNode(Answer):
    """A living node of Ray that is to have a worker."""

    ray_node: str
    name: str
    address: str
    resources: dict[str, float] = Field(description="What the node offers Ray")
    node_id: str | None = Field(description="The node of the cluster that is its worker; null: none runs")
    state: str = Field(description="That of the node; STARTING or FAILED, if there is none")
    problem: str | None = Field(description="Why no worker runs there, or what could not be reserved")


class RayProblem(Answer):
    """Why Ray is not reached."""

    code: str
    message: str
    hint: str | None


class RayCluster(Answer):
    """The Ray cluster on whose nodes the supervisor starts workers."""

    address: str
    is_reached: bool
    version: str | None
    problem: RayProblem | None
    nodes: list[RayNode]
    wanted: list[str] = Field(description="The models that wait for a node of the autoscaler")
