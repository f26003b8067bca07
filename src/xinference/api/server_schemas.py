"""The answers of the routes about the server, its machine and its cluster, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xinference.api.schemas import Answer, Description


class WorkerStatus(Answer):
    """The resources that one machine uses, in bytes. ``cpu.usage`` is a share of the ``cpu.total`` cores, 0 to 1."""

    update_time: float
    failure_remaining_count: int
    status: dict[str, dict[str, float | int | str]]


class ServerStatus(Answer):
    """The server and its machine."""

    version: str
    pid: int
    uptime: int
    home: str | None
    models: int
    workers: dict[str, WorkerStatus]


class Auth(Answer):
    """Whether requests need a key."""

    auth: bool


class ServerVersion(Answer):
    """The server's version."""

    version: str
    full_revisionid: str | None = Field(alias="full-revisionid")


class Node(Answer):
    """One node of the cluster. The same machine is supervisor and worker."""

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
    """One machine, and its models by uid."""

    work_ip: str = Field(alias="work-ip")
    models: dict[str, Description]


class Supervisor(Answer):
    """The address of the server."""

    supervisor_ip: str


class Result(Answer):
    """Whether the operation succeeded."""

    result: bool


class Finding(Answer):
    """One result of the check of the machine."""

    about: str
    state: Literal["ok", "lack", "broken"]
    found: str
    cost: str | None = Field(description="What a missing resource prevents; null: nothing")


class Setting(Answer):
    """One setting of the server."""

    name: str
    variable: str = Field(description="The variable of the environment that sets it")
    value: str | bool | int | float
    default: str | bool | int | float
    is_default: bool
    meaning: str
