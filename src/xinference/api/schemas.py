"""What the management routes answer, for the OpenAPI document. Further fields may come with later versions."""

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
    """What a launch answers."""

    model_uid: str


class PlannedFile(Answer):
    """A file to download; `size` in bytes, null if it is not known."""

    name: str
    size: int | None


class PlannedMemory(Answer):
    """Memory of one replica, in bytes. `loaded` is what it holds once it is ready; null before the weights are read."""

    weights: int | None
    kv_cache: int | None
    overhead: int | None
    total: int | None
    loaded: int | None


class LaunchPlanAnswer(Answer):
    """The answer of `dry_run`: every decision about a launch, with its reasons."""

    model_uid: str
    version: str
    engine: str
    hub: str
    model_id: str | None
    revision: str | None
    files: list[PlannedFile]
    path: str | None
    context_length: int | None = Field(description="Tokens of the longest prompt and its answer together")
    slots: int | None = Field(description="Maximum number of requests computed at the same time")
    threads: int
    replica: int
    devices: list[list[int]] = Field(description="GPU indices of each replica; empty: the CPU")
    tensor_parallel: int | None
    memory_fraction: float | None
    memory: PlannedMemory
    reasons: list[str]
    options: dict[str, Any] = Field(description="Options of the engine, by its own names")


class Description(Answer):
    """One deployment. Of one that can't be taken up, only the uid, the status and the stage are known."""

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
    replica: int | None = None
    address: str | None = None
    accelerators: list[str] | None = None
    memory_used_bytes: int | None = None
    gpu_memory_used_bytes: int | None = None
    on_demand: bool | None = None
    ttl: float | None = None
    pin: bool | None = None
    priority: int | None = None


class Model(Description):
    """One deployment as OpenAI's clients retrieve it."""

    id: str
    object: str
    created: int
    owned_by: str


class ReplicaAnswer(Answer):
    """One replica."""

    replica_id: int
    replica_model_uid: str
    replica_uid: str | None = Field(description="The name of its process, another after each restart")
    worker_address: str | None = Field(description="The server's address; null within an instance")
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
    replicas: list[ReplicaAnswer]
    replica_statuses: list[ReplicaAnswer] = Field(description="The same as `replicas`")


class AddedReplica(Answer):
    """One replica that was added."""

    replica_id: int
    replica_model_uid: str
    worker_address: str


class AddedReplicas(Answer):
    """Several replicas that were added."""

    replica: int
    replicas: list[AddedReplica]


class Remaining(Answer):
    """How many replicas are left."""

    remaining_replicas: int


class DownloadFile(Answer):
    """Bytes that moved; the total is that of all files of the version."""

    file_name: str
    bytes_done: int
    bytes_total: int | None
    progress: float


class ReplicaProgress(Answer):
    """One replica's part of a launch."""

    replica_id: int
    replica_model_uid: str
    progress: float
    stage: str
    info: str | None
    updated_at: float
    download_files: list[DownloadFile]


class Progress(Answer):
    """How far a launch is."""

    progress: Annotated[float, Field(ge=0, le=1)]
    stage: Literal["pending", "launching", "downloading", "loading", "ready", "failed"]
    download_files: list[DownloadFile]
    replicas: list[ReplicaProgress]


class Event(Answer):
    """Something that happened to a deployment or a download."""

    event_id: int
    event_ts: float
    event_type: str
    stage: str
    event_content: str


class Message(Answer):
    """What an abort came to."""

    msg: Literal["DONE", "NOT_FOUND", "NO_OP"]


class WorkerStatus(Answer):
    """What one machine uses; bytes. ``cpu.usage`` is a share of all cores, ``cpu.total`` their number."""

    update_time: float
    failure_remaining_count: int
    status: dict[str, dict[str, float | int | str]]


class ServerStatus(Answer):
    """The server and its machine."""

    version: str
    pid: int
    uptime: int
    home: str
    models: int
    workers: dict[str, WorkerStatus]


class Auth(Answer):
    """Whether a key is needed."""

    auth: bool


class ServerVersion(Answer):
    """The server's version."""

    version: str
    full_revisionid: str | None = Field(alias="full-revisionid")


class Node(Answer):
    """One part of the cluster; there is one machine, which is both."""

    node_type: Literal["Supervisor", "Worker"]
    ip_address: str
    gpu_count: int
    gpu_vram_total: str
    cpu_available: float | None = None
    cpu_count: int | None = None
    mem_used: int | None = None
    mem_available: int | None = None
    mem_total: int | None = None
    gpu_vram_available: str | None = None


class Worker(Answer):
    """One machine and its models, by uid."""

    work_ip: str = Field(alias="work-ip")
    models: dict[str, Description]


class Supervisor(Answer):
    """Where the server is."""

    supervisor_ip: str


class Result(Answer):
    """Whether it was done."""

    result: bool
