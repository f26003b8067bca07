"""The answers of the management routes, for the OpenAPI document. Later versions may add fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xinference.api.errors import ProblemParts

Status = Literal[
    "CREATING",
    "LOADING",
    "READY",
    "RECOVERING",
    "UNLOADED",
    "UNLOADING",
    "UPDATING",
    "TERMINATING",
    "TERMINATED",
    "ERROR",
]


class Answer(BaseModel):
    """One JSON object."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ModelUid(Answer):
    """The uid of a launched model."""

    model_uid: str
    found: Literal["running", "launching", "unloaded", "failed"] | None = Field(
        default=None,
        description="The state in which an earlier, equal launch was found, which is used or started again; "
        "null: a new launch",
    )


class PlannedFile(Answer):
    """A file to download; `size` in bytes, null if it is not known."""

    name: str
    size: int | None


class PlannedPlace(Answer):
    """Where one rank of one replica runs. A replica on one machine has only the rank 0."""

    replica: int
    rank: int
    node: str = Field(description="`local`: the server's own machine; else the id of a node of the cluster")
    devices: list[int] = Field(description="Indices of the node's GPUs; empty: its CPU")


class PlannedMemory(Answer):
    """Memory of one replica, in bytes. `loaded` is its memory when it is ready."""

    weights: int | None
    kv_cache: int | None
    overhead: int | None
    saved_states: int | None
    total: int | None
    loaded: int | None
    source: Literal["file header", "registry", "estimate"] | None = Field(
        description="Source of the model's shape; an estimate has only its size and the bits of the quantization"
    )


class PlannedDiskUse(Answer):
    """Disk space that a launch needs before its engine starts, in bytes."""

    purpose: Literal["download", "conversion", "environment"]
    folder: str
    needed_bytes: int
    free_bytes: int


class LaunchPlanAnswer(Answer):
    """The answer of `dry_run`: every decision about a launch, with its reasons."""

    model_uid: str
    version: str
    engine: str
    hub: str
    model_id: str | None
    revision: str | None
    files: list[PlannedFile]
    files_bytes: int | None = Field(description="Bytes of all files, also of the cached ones; null: not known")
    files_source: Literal["hub", "registry", "estimate"] | None = Field(
        description="Source of `files_bytes`: the hub's list, the registry, or an estimate from the model's shape"
    )
    path: str | None
    context_length: int | None = Field(description="Tokens of the longest prompt and its answer together")
    slots: int | None = Field(description="Maximum number of requests computed at the same time")
    threads: int
    replica: int
    devices: list[list[int]] = Field(description="GPU indices of each replica; empty: the CPU")
    places: list[PlannedPlace] = Field(
        description="The machine and the GPUs of each replica; `memory` is what each place has. Empty: not decided yet"
    )
    tensor_parallel: int | None
    memory_fraction: float | None
    memory: PlannedMemory
    download_bytes: int | None = Field(description="Bytes of the files that are not cached; null: not known")
    disk: list[PlannedDiskUse]
    reasons: list[str]
    warnings: list[str] = Field(description="One text for each field of the launch that has no effect")
    options: dict[str, Any] = Field(description="Options of the engine, by its own names")
    found: Literal["running", "launching", "unloaded", "failed"] | None = Field(
        description="The state of an earlier, equal launch, which a launch would use or start again, and whose plan "
        "this is; null: a new launch"
    )
    plan_of_copy: LaunchPlanAnswer | None = Field(
        description="Where an earlier launch was found: the plan of the copy that `new` would launch"
    )
    problem_of_copy: ProblemParts | None = Field(description="The reason why such a copy would be refused")


class Description(Answer):
    """One deployment. A deployment that can't be restored has only its uid, status and stage."""

    model_uid: str
    status: Status
    stage: str
    instance_created_ts: int
    model_type: str | None = None
    model_name: str | None = None
    model_engine: str | None = None
    model_format: str | None = None
    model_size_in_billions: int | str | None = None
    quantization: str | None = None
    model_family: str | None = None
    model_lang: list[str] | None = None
    model_ability: list[str] | None = None
    model_description: str | None = None
    model_hub: str | None = None
    revision: str | None = None
    context_length: int | None = None
    dimensions: int | None = Field(default=None, description="Length of the vectors; null: not known. Embeddings only")
    max_tokens: int | None = Field(
        default=None, description="The same as `context_length`. Embedding and rerank models only"
    )
    language: list[str] | None = Field(
        default=None, description="The same as `model_lang`. Embedding and rerank models only"
    )
    replica: int | None = None
    aliases: list[str] | None = Field(default=None, description="Further names of the model in requests")
    max_output_tokens: int | None = Field(
        default=None, description="Maximum number of output tokens of each request; null: the context length"
    )
    max_request_seconds: float | None = Field(
        default=None, description="Maximum time of each request, in seconds; null: no limit"
    )
    address: str | None = None
    accelerators: list[str] | None = None
    memory_used_bytes: int | None = None
    gpu_memory_used_bytes: int | None = None
    on_demand: bool | None = None
    ttl: float | None = None
    pin: bool | None = None
    priority: int | None = None


class Model(Description):
    """One deployment, with the fields of an OpenAI model."""

    id: str
    object: str
    created: int
    owned_by: str
    parent: str | None = Field(default=None, description="The model's uid if this is the entry of an adapter")
    alias_of: str | None = Field(default=None, description="The model's uid if this is the entry of an alias")


class ReplicaAnswer(Answer):
    """One replica."""

    replica_id: int
    replica_model_uid: str
    replica_uid: str | None = Field(description="The name of its process; it changes with each restart")
    worker_address: str | None = Field(
        description="The address of its machine; null within an instance if the server has no cluster"
    )
    node: str = Field(description="The machine on which it runs or is to run; `local` is the server's own")
    nodes: list[str] | None = Field(
        default=None, description="The machines that compute it together, `node` first; only if there are several"
    )
    node_names: list[str] | None = Field(default=None, description="The names of its machines; only in a cluster")
    model_address: str | None
    address: str | None = Field(description="The same as `model_address`")
    accelerators: list[str]
    gpu_idx: list[int]
    status: Status
    created_ts: int
    error_message: str | None
    engine_pid: int | None = None
    keeper_pid: int | None = None


class Instance(Description):
    """One deployment with its version, problem and replicas."""

    model_version: str | None = None
    n_worker: int | None = None
    problem: ProblemParts | None
    slots: int | None = Field(
        default=None, description="Maximum number of requests computed at the same time by one replica"
    )
    planned_memory_bytes: int | None = Field(default=None, description="Memory reserved for each replica")
    adapters: list[str] | None = Field(default=None, description="Names of the LoRA adapters in requests")
    replicas: list[ReplicaAnswer]
    replica_statuses: list[ReplicaAnswer] = Field(description="The same as `replicas`")


class LaunchRecord(Answer):
    """One launch of the history. Times are in ISO 8601, UTC."""

    id: int
    model_name: str
    model_uid: str
    status: Literal["launching", "running", "failed", "ended", "cancelled"]
    ui_data: None
    created_by: str
    is_owner: bool
    data: dict[str, Any] = Field(description="The launch as a body of `POST /v1/models`, with hidden values of `envs`")
    created_at: str
    updated_at: str
    ready_at: str | None
    ended_at: str | None
    problem: ProblemParts | None


class ReloadStatus(Answer):
    """The state of the last reload."""

    status: Literal["idle", "reloading", "ready", "error"]
    stage: str
    error: str | None


class ReloadConfig(Answer):
    """The parameters of a model that a reload can change: their types and their set values."""

    enabled: bool
    engine: str
    model_config_: dict[str, Any] = Field(alias="model_config")
    parameters: dict[str, str]
    hot_parameters: list[str] = Field(description="Always empty: each change starts the engine again")


class AddedReplica(Answer):
    """An added replica."""

    replica_id: int
    replica_model_uid: str
    worker_address: str


class AddedReplicas(Answer):
    """Several added replicas."""

    replica: int
    replicas: list[AddedReplica]


class Remaining(Answer):
    """The number of remaining replicas."""

    remaining_replicas: int


class DownloadFile(Answer):
    """Downloaded bytes; the total is that of all files of the version."""

    file_name: str
    bytes_done: int
    bytes_total: int | None
    progress: float


class ReplicaProgress(Answer):
    """The progress of one replica."""

    replica_id: int
    replica_model_uid: str
    progress: float
    stage: str
    info: str | None
    updated_at: float
    download_files: list[DownloadFile]


class Progress(Answer):
    """The progress of a launch, from 0 to 1."""

    progress: Annotated[float, Field(ge=0, le=1)]
    stage: Literal["pending", "launching", "downloading", "loading", "ready", "failed"]
    download_files: list[DownloadFile]
    replicas: list[ReplicaProgress]


class Event(Answer):
    """An event of a deployment or a download."""

    event_id: int
    event_ts: float
    event_type: str
    stage: str
    event_content: str


class Message(Answer):
    """The result of an abort."""

    msg: Literal["DONE", "NOT_FOUND", "NO_OP"]


class RequestProgress(Answer):
    """The progress of one request, from 0 to 1."""

    progress: float
    elapsed_seconds: float
    eta_seconds: float | None
