"""The body of a launch: the fields of older and newer versions, checked, and what each comes to on one machine."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from xinference.errors import bad_request
from xinference.launch.request import LaunchRequest

#: Longest text of one field; a path has at most 4096 bytes on Linux.
MAX_TEXT = 4096
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
#: Counts and indices beyond this are slips of the finger, and SQLite's integers end at 2^63.
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: A ttl that is over as soon as the answer is sent.
AT_ONCE = 0.001
#: Variables that make a program load other code than its own, and those that are ours.
_REFUSED_VARIABLES = ("LD_", "DYLD_", "PYTHON", "XINFERENCE_")


class LoraModule(BaseModel):
    """One LoRA adapter."""

    lora_name: Text
    local_path: Text = Field(min_length=1)


class PeftModelConfig(BaseModel):
    """The adapters of a launch, as an older Xinference takes them."""

    model_config = ConfigDict(extra="forbid")

    lora_list: list[LoraModule] | None = None
    image_lora_load_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=0, description="Images are not served."
    )
    image_lora_fuse_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=0, description="Images are not served."
    )


class ReplicaDevice(BaseModel):
    """Where one replica is to run."""

    model_config = ConfigDict(extra="forbid")

    worker_ip: Text | None = None
    n_gpu: Count | Literal["auto"] | None = None
    gpu_idx: Count | list[Count] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices that it names; none: whichever fit."""
        return as_indices(self.gpu_idx) or ()


class ReplicaConfig(BaseModel):
    """One replica's label and place."""

    model_config = ConfigDict(extra="forbid")

    replica_uid: Text | None = Field(
        default=None, description="A label; replicas are named by number here, so it is not kept."
    )
    devices: list[ReplicaDevice] = Field(default=[], max_length=1)

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices that it names; none: whichever fit."""
        return self.devices[0].indices if self.devices else ()


class LaunchBody(BaseModel):
    """What to launch. Every further field is an option of the engine, by the engine's own name."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: Name
    model_uid: Text | None = None
    model_type: Text = "LLM"
    model_engine: Text | None = None
    model_size_in_billions: int | float | Text | None = None
    model_format: Text | None = None
    quantization: Text | None = None
    model_path: Text | None = None
    download_hub: Text | None = None
    n_gpu: int | Literal["auto"] | None = Field(default="auto", description="GPUs for each replica; null: the CPU only")
    gpu_idx: Count | list[Count] | None = Field(
        default=None, description="The very GPUs, dealt out to the replicas in turn"
    )
    replica: int = 1
    n_worker: int = Field(default=1, description="Machines for each replica: 1")
    worker_ip: Text | None = Field(default=None, description="Without effect: there is one machine")
    replica_config: list[ReplicaConfig] | None = Field(
        default=None, description="A place for each replica; its length wins"
    )
    request_limits: Count | None = Field(default=None, description="Requests that the model takes at the same time")
    enable_thinking: bool | None = Field(default=None, description="For hybrid models: whether they think first")
    enable_virtual_env: bool | None = Field(
        default=None, description="Without effect: engines have environments of their own"
    )
    virtual_env_packages: list[Text] | None = Field(default=None, description="Refused: environments are locked")
    virtual_env_find_links: list[Text] | None = Field(default=None, description="Refused: environments are locked")
    envs: dict[str, Text] | None = Field(default=None, description="Environment variables of the engine's processes")
    peft_model_config: PeftModelConfig | None = None
    on_demand: bool = Field(default=False, description="Loaded by its first request, unloaded when it is idle")
    ttl: float | None = Field(
        default=None, description="Seconds without a request until it is unloaded; 0: only when its room is needed"
    )
    keep_alive: float | Text | None = Field(
        default=None, description="ttl in Ollama's form, such as 5m; negative: only when its room is needed"
    )
    pin: bool = Field(default=False, description="It is not unloaded for another model")
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] = Field(
        default=0, description="Of those that may leave for another model, the least leaves first"
    )

    def request(self) -> LaunchRequest:
        """The same for the controller.

        Raises:
            Problem: 400, what one machine can't do, or what would be wrong to ignore.
        """
        self._refuse()
        replica, gpu_idx = self._places()
        return LaunchRequest(
            model_name=self.model_name,
            model_uid=self.model_uid,
            model_type=self.model_type,
            model_engine=self.model_engine,
            model_size_in_billions=whole_size(self.model_size_in_billions),
            model_format=self.model_format,
            quantization=self.quantization,
            model_path=self.model_path,
            download_hub=self.download_hub,
            n_gpu=self.n_gpu,
            gpu_idx=gpu_idx,
            replica=replica,
            request_limits=self.request_limits,
            enable_thinking=self.enable_thinking,
            envs=self.envs or {},
            on_demand=self.on_demand,
            ttl=self._ttl(),
            pin=self.pin,
            priority=self.priority,
            options={**(self.model_extra or {}), **self._adapters()},
        )

    def remarks(self) -> list[str]:
        """What was asked for and changes nothing here; told as warnings."""
        said = []
        if self.worker_ip is not None:
            said.append(f"worker_ip {self.worker_ip} is ignored: this server is one machine")
        if any(device.worker_ip for config in self.replica_config or () for device in config.devices):
            said.append("replica_config names workers: this server is one machine, and all replicas run here")
        if self.enable_virtual_env is not None:
            said.append(
                "enable_virtual_env is ignored: engines run in locked environments of their own (`xinference env`)"
            )
        return said

    def _refuse(self) -> None:
        if self.n_worker != 1:
            raise bad_request(
                f"n_worker is {self.n_worker}, and this server is one machine.",
                hint="Leave n_worker out; replica says how many copies run here.",
            )
        for field in ("virtual_env_packages", "virtual_env_find_links"):
            if getattr(self, field):
                raise bad_request(
                    f"{field} can't be had: each engine's environment is made from a lock file and not changed.",
                    hint="Leave it out; `xinference env list` shows what there is.",
                )
        for name in self.envs or {}:
            if not _VARIABLE.fullmatch(name):
                raise bad_request(f"envs: {name!r} is not the name of an environment variable.")
            if name.upper().startswith(_REFUSED_VARIABLES):
                raise bad_request(
                    f"envs: {name} decides which code a program loads, or is ours to set.",
                    hint="Set it for the server itself if it must be.",
                )

    def _ttl(self) -> float | None:
        if self.keep_alive is None:
            return self.ttl
        if self.ttl is not None:
            raise bad_request("ttl and keep_alive say the same.", hint="Give one of them.")
        return ttl_of(self.keep_alive)

    def _places(self) -> tuple[int, tuple[int, ...] | None]:
        """How many replicas, and the devices of all of them, dealt out in turn."""
        gpu_idx = as_indices(self.gpu_idx)
        if not self.replica_config:
            return self.replica, gpu_idx
        if gpu_idx is not None:
            raise bad_request("replica_config and gpu_idx both name devices.", hint="Give one of them.")
        groups = [config.indices for config in self.replica_config]
        if not any(groups):
            return len(groups), None
        if len({len(group) for group in groups}) > 1:
            raise bad_request("replica_config: every replica needs the same number of devices in gpu_idx.")
        return len(groups), tuple(group[n] for n in range(len(groups[0])) for group in groups)

    def _adapters(self) -> dict[str, Any]:
        """The adapters as the engine's option, beside those that were given as that option."""
        listed = (self.peft_model_config and self.peft_model_config.lora_list) or []
        given = (self.model_extra or {}).get("lora_modules")
        if not listed:
            return {}
        before = given if isinstance(given, list) else [] if given is None else [given]
        return {"lora_modules": [*before, *({module.lora_name: module.local_path} for module in listed)]}


def ttl_of(keep_alive: float | str) -> float:
    """Ollama's `keep_alive`, seconds or a duration such as ``1h30m``, as a `ttl`.

    Raises:
        Problem: 400, it is no duration.
    """
    if isinstance(keep_alive, str):
        text = keep_alive.strip()
        parts = _DURATION.findall(text)
        try:
            seconds = float(text) if not parts else sum(float(n) * _SECONDS[unit] for n, unit in parts)
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds) or (parts and "".join(n + unit for n, unit in parts) != text.lstrip("-")):
            raise bad_request(
                f"keep_alive {keep_alive!r} is not a duration.", hint="Use seconds, or a text such as 30s, 5m or 1h."
            )
        keep_alive = -seconds if parts and text.startswith("-") else seconds
    # Theirs keeps a model for ever if it is negative, and not a moment longer if it is 0; ours has 0 for ever.
    return 0.0 if keep_alive < 0 else max(keep_alive, AT_ONCE)


def as_indices(given: int | list[int] | None) -> tuple[int, ...] | None:
    """One device's index, several, or None for no say."""
    if given is None:
        return None
    return (given,) if isinstance(given, int) else tuple(given)


def whole_size(size: float | str | None) -> int | str | None:
    """Billions of parameters as the registry has them: no float."""
    if isinstance(size, float):
        return int(size) if size.is_integer() else str(size)
    return size
