"""The answer about the machine and the owners of its memory, for the OpenAPI document; sizes in bytes."""

from __future__ import annotations

from pydantic import Field

from xinference.api.schemas import Answer


class DeviceOwner(Answer):
    """One replica, with its share of a device."""

    node: str
    model_uid: str
    replica: int
    planned: int | None = Field(description="null: nothing is planned on this device, or there is no size yet")
    planned_loaded: int | None = Field(
        description="What is in memory when the model is ready, with pages of its file; compare it with `measured`"
    )
    planned_states: int | None = Field(description="Part of `planned`: maximum size of saved states of prompts")
    measured: int | None = Field(
        description="On the host the resident memory of its processes and the saved states; null: not known"
    )
    measured_states: int | None = Field(description="Part of `measured`: saved states of prompts; null: it has none")


class ControlGroup(Answer):
    """The limits of the server's control group; null: not limited."""

    memory_limit: int | None
    memory_left: int | None
    cpus: float | None


class HostMemory(Answer):
    """The memory and the processors of the machine, within the limits of the control group."""

    name: str | None
    cores: int
    total: int
    free: int
    control_group: ControlGroup
    owners: list[DeviceOwner]


class GpuMemory(Answer):
    """One GPU."""

    index: int
    uuid: str
    name: str
    total: int
    free: int
    utilization: float | None = Field(description="Share of the last moment in which it computed; null: not reported")
    temperature: float | None = Field(description="Degrees Celsius")
    power: float | None = Field(description="Watts")
    owners: list[DeviceOwner]


class Disk(Answer):
    """One file system."""

    node: str
    holds: list[str] = Field(description="The folders of the server on it: home, and those of weights and environments")
    total: int
    free: int


class Machine(Answer):
    """One machine."""

    node: str
    time: float = Field(description="Seconds since the epoch")
    gpus: list[GpuMemory]
    no_gpu_reason: str | None = Field(description="Why the server uses no GPU")


class WorkerMachine(Machine):
    """The machine of a worker, by its last report; the load of its GPUs and its disks are not reported."""

    name: str
    state: str
    host: HostMemory | None = Field(description="null: its link is down")
    disks: list[Disk]


class Devices(Machine):
    """The server's machine, and those of its workers."""

    host: HostMemory
    disks: list[Disk]
    workers: list[WorkerMachine] = Field(description="Empty on one machine")
