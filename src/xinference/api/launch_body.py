"""The body of a launch: the fields of older and newer versions, checked, and their effect on one machine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, join_names, shown
from xinference.launch.model_size import whole_size
from xinference.launch.request import LaunchRequest

#: Maximum length of a text; a path has at most 4096 bytes on Linux.
MAX_TEXT = 4096
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
#: Larger counts and indices are typing errors, and SQLite's integers end at 2^63.
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
#: The priority of a model on demand when memory is short.
Priority = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: A ttl that ends as soon as the answer is sent.
AT_ONCE = 0.001

#: The warning about nodes in `replica_config` on one machine.
IGNORED_NODES = "replica_config: worker_ip is ignored: this server has no cluster"


class LoraModule(BaseModel):
    """One LoRA adapter."""

    lora_name: Text
    local_path: Text = Field(min_length=1)


class PeftModelConfig(BaseModel):
    """The adapters of a launch, in the form of older versions."""

    model_config = ConfigDict(extra="forbid")

    lora_list: list[LoraModule] | None = None
    image_lora_load_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=0, description="Image models are not served"
    )
    image_lora_fuse_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=0, description="Image models are not served"
    )


class ReplicaDevice(BaseModel):
    """The devices of one replica."""

    model_config = ConfigDict(extra="forbid")

    worker_ip: Text | None = None
    n_gpu: Count | Literal["auto"] | None = None
    gpu_idx: Count | list[Count] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices; empty: chosen by the server."""
        return as_indices(self.gpu_idx) or ()


class ReplicaConfig(BaseModel):
    """The label and the devices of one replica."""

    model_config = ConfigDict(extra="forbid")

    replica_uid: Text | None = Field(default=None, description="No effect: replicas are named by number")
    devices: list[ReplicaDevice] = Field(default=[], max_length=1)

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices; empty: chosen by the server."""
        return self.devices[0].indices if self.devices else ()


class LaunchBody(BaseModel):
    """The model to launch. Every further field is an option of the engine, by the engine's own name."""

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
    n_gpu: int | Literal["auto"] | None = Field(
        default="auto", description="Number of GPUs for each replica; null: only the CPU"
    )
    gpu_idx: Count | list[Count] | None = Field(
        default=None, description="Indices of the GPUs to use, assigned to the replicas in turn"
    )
    replica: int = Field(default=1, description="Number of copies to run")
    n_worker: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Number of nodes of a cluster that compute each replica together"
    )
    allow_plain_gang: bool = Field(
        default=False,
        description="Let the nodes of a replica connect without encryption over a network that is not private",
    )
    worker_ip: Text | None = Field(
        default=None,
        description="The only nodes of a cluster to use, by id, name or address, separated by commas",
    )
    labels: dict[Name, Text] | None = Field(
        default=None, max_length=32, description="Use only workers of a cluster that have these labels"
    )
    replica_config: list[ReplicaConfig] | None = Field(
        default=None, description="The devices of each replica; its length overrides `replica`"
    )
    request_limits: Count | None = Field(default=None, description="Maximum number of requests at the same time")
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="Maximum number of tokens of each answer"
    )
    max_request_seconds: Annotated[float, Field(gt=0, le=2**31)] | None = Field(
        default=None, description="Maximum time in seconds that the engine spends on one request"
    )
    enable_thinking: bool | None = Field(
        default=None, description="Whether a hybrid model thinks before it answers; null: its chat template decides"
    )
    enable_virtual_env: bool | None = Field(default=None, description="No effect: each engine has its own environment")
    virtual_env_packages: list[Text] | None = Field(
        default=None, description="Rejected: environments are made from lock files"
    )
    virtual_env_find_links: list[Text] | None = Field(
        default=None, description="Rejected: environments are made from lock files"
    )
    envs: dict[str, Text] | None = Field(
        default=None,
        description="Environment variables of the engine's processes; docs/security.md describes the allowed ones",
    )
    peft_model_config: PeftModelConfig | None = None
    aliases: list[Text] | None = Field(default=None, description="Other names of the model in requests")
    new: bool = Field(
        default=False, description="Launch a copy, even if the same model already runs; a taken uid gets a suffix"
    )
    on_demand: bool = Field(
        default=False, description="Load the model at its first request, and unload it when it is idle"
    )
    ttl: float | None = Field(
        default=None,
        description="Idle seconds until an on-demand model is unloaded; 0: only when another model needs the memory",
    )
    keep_alive: float | Text | None = Field(
        default=None, description="`ttl` in Ollama's form, such as 5m; negative: only when its memory is needed"
    )
    applied_from: Text | None = Field(
        default=None, description="The set of models of `xinference apply` that the launch belongs to"
    )
    pin: bool = Field(default=False, description="Do not unload an on-demand model for another model")
    priority: Priority = Field(
        default=0, description="If memory is short, models of the lowest priority are unloaded first"
    )

    def request(self, *, is_cluster: bool = False) -> LaunchRequest:
        """The request for the controller of a server on one machine, or of a cluster.

        Raises:
            Problem: 400, a field requires several machines, or is not supported and must not be ignored.
        """
        self._check(is_cluster)
        replica, gpu_idx = self._placement()
        fields: dict[str, Any] = {name: getattr(self, name) for name in _UNCHANGED}
        return LaunchRequest(
            **fields,
            model_size_in_billions=whole_size(self.model_size_in_billions),
            gpu_idx=gpu_idx,
            replica=replica,
            worker_ip=self._nodes() if is_cluster else None,
            labels=self.labels or {},
            envs=self.envs or {},
            aliases=tuple(dict.fromkeys(self.aliases or ())),
            ttl=self._ttl(),
            options={**(self.model_extra or {}), **self._adapters()},
        )

    def warnings(self, *, is_cluster: bool = False) -> list[str]:
        """One warning for each field that has no effect."""
        warnings = [] if is_cluster else self._warnings_of_nodes()
        if self.allow_plain_gang and self.n_worker == 1:
            warnings.append("allow_plain_gang is ignored: n_worker is 1, so each replica runs on one machine")
        if self.enable_virtual_env is not None:
            warnings.append(
                "enable_virtual_env is ignored: each engine runs in its own locked environment (`xinference env`)"
            )
        return warnings

    @contextmanager
    def naming_similar_fields(self) -> Iterator[None]:
        """Add to the refusal of an unknown engine option the field of this body that it may be meant for."""
        try:
            yield
        except Problem as problem:
            if problem.code != Code.UNKNOWN_OPTION:
                raise
            unknown = [key for key in self.model_extra or () if f"--{key}." in problem.cause]
            fields = [name for key in unknown for name in _similar_fields(key)]
            if not fields:
                raise
            hint = f"Did you mean the field {join_names(fields)}? {problem.hint or ''}".rstrip()
            raise problem.replace(hint=hint) from None

    def _warnings_of_nodes(self) -> list[str]:
        warnings = []
        if self.worker_ip is not None:
            warnings.append(f"worker_ip {self.worker_ip} is ignored: this server has no cluster")
        if any(device.worker_ip for config in self.replica_config or () for device in config.devices):
            warnings.append(IGNORED_NODES)
        return warnings

    def _nodes(self) -> str | None:
        """The nodes that the launch names, each once; None: all may be used."""
        devices = [device for config in self.replica_config or () for device in config.devices]
        named = [self.worker_ip or "", *(device.worker_ip or "" for device in devices)]
        names = [name.strip() for text in named for name in text.split(",")]
        return ",".join(dict.fromkeys(filter(None, names))) or None

    def _check(self, is_cluster: bool) -> None:
        if self.n_worker != 1 and not is_cluster:
            raise bad_request(
                f"n_worker is {self.n_worker}, but this server has no cluster.",
                hint="Leave out n_worker; `replica` is the number of copies on this machine.",
            )
        if self.labels and not is_cluster:
            raise bad_request(
                f"labels ask for {_listed(self.labels)}, but this server has no cluster, and so no labels.",
                hint="Leave out labels; only workers of a cluster have them.",
            )
        for field in ("virtual_env_packages", "virtual_env_find_links"):
            if getattr(self, field):
                raise bad_request(
                    f"{field} is not supported: each engine's environment is made from a lock file and never changed.",
                    hint="Leave it out; `xinference env list` shows the environments.",
                )

    def _ttl(self) -> float | None:
        if self.keep_alive is None:
            return self.ttl
        if self.ttl is not None:
            raise bad_request("ttl and keep_alive are the same setting.", hint="Pass only one of them.")
        return ttl_of(self.keep_alive)

    def _placement(self) -> tuple[int, tuple[int, ...] | None]:
        """The number of replicas, and the devices of all of them, assigned in turn."""
        gpu_idx = as_indices(self.gpu_idx)
        if not self.replica_config:
            return self.replica, gpu_idx
        if gpu_idx is not None:
            raise bad_request("replica_config and gpu_idx both name devices.", hint="Pass only one of them.")
        groups = [config.indices for config in self.replica_config]
        if not any(groups):
            return len(groups), None
        if len({len(group) for group in groups}) > 1:
            raise bad_request("replica_config: every replica requires the same number of devices in gpu_idx.")
        return len(groups), tuple(group[n] for n in range(len(groups[0])) for group in groups)

    def _adapters(self) -> dict[str, Any]:
        """The adapters as the engine's option, after the adapters that the option already has."""
        adapters = (self.peft_model_config and self.peft_model_config.lora_list) or []
        if not adapters:
            return {}
        named = (self.model_extra or {}).get("lora_modules") or []
        before = named if isinstance(named, list) else [named]
        return {"lora_modules": [*before, *({each.lora_name: each.local_path} for each in adapters)]}


def _listed(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


_CONVERTED = ("model_size_in_billions", "gpu_idx", "worker_ip", "replica", "labels", "envs", "ttl", "aliases")
#: The fields that a `LaunchRequest` takes from the body unchanged.
_UNCHANGED = tuple(
    name for name in LaunchRequest.__struct_fields__ if name in LaunchBody.model_fields and name not in _CONVERTED
)


def ttl_of(keep_alive: float | str) -> float:
    """The `ttl` for Ollama's `keep_alive`, which is seconds or a duration such as ``1h30m``.

    Raises:
        Problem: 400 if it is not a duration.
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
                f"keep_alive {shown(keep_alive)} is not a duration.",
                hint="Use seconds, or a text such as 30s, 5m or 1h.",
            )
        keep_alive = -seconds if parts and text.startswith("-") else seconds
    # In Ollama a negative value means for ever and 0 means at once; in `ttl` 0 means for ever.
    return 0.0 if keep_alive < 0 else max(keep_alive, AT_ONCE)


def as_indices(indices: int | list[int] | None) -> tuple[int, ...] | None:
    """The indices of one device or several; None: the request names no device."""
    if indices is None:
        return None
    return (indices,) if isinstance(indices, int) else tuple(indices)


def _similar_fields(key: str) -> list[str]:
    """The fields of a launch of which `key` is a misspelling or the last part, at most three."""
    import difflib  # only a refused launch needs it

    names = list(LaunchBody.model_fields)
    parts = [name for name in names if name.endswith(f"_{key}")]
    return (parts or difflib.get_close_matches(key, names, n=3, cutoff=0.8))[:3]
