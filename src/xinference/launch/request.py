"""The request to launch a model."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.catalog.models import ModelFamily


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to launch a model; every field but the model's name has a default."""

    model_name: str
    model_uid: str | None = None
    model_type: str = "LLM"
    model_engine: str | None = None
    model_size_in_billions: int | str | None = None
    model_format: str | None = None
    quantization: str | None = None
    model_path: str | None = None
    download_hub: str | None = None
    n_gpu: int | str | None = "auto"
    """``auto``, the number of GPUs of each replica, or None for the CPU."""
    gpu_idx: tuple[int, ...] | None = None
    """Indices of the GPUs, assigned to the replicas in turn; overrides `n_gpu`."""
    replica: int = 1
    """Number of replicas."""
    n_worker: int = 1
    """Number of nodes of the cluster that compute each replica together."""
    allow_plain_gang: bool = False
    """The nodes of a replica may connect without encryption over a network that is not labelled as private."""
    worker_ip: str | None = None
    """The only nodes of the cluster that may be used, by id, name or address, separated by commas; None: all."""
    labels: dict[str, str] = {}
    """Labels that each node of the replicas must have with these values."""
    request_limits: int | None = None
    """Maximum number of concurrent requests, 0 or more; None: no limit."""
    max_output_tokens: int | None = None
    """Maximum number of tokens of each answer; None: no limit but the context."""
    max_request_seconds: float | None = None
    """Maximum time that the engine spends on one request; None: no limit."""
    enable_thinking: bool | None = None
    """Whether a hybrid model thinks before it answers; None: the default of its chat template."""
    envs: dict[str, str] = {}
    """Environment variables of the engine's processes."""
    family: ModelFamily | None = None
    """The family of a name that is not a built-in model; stored with the launch, so that it stays the same."""
    asked_name: str | None = None
    """The name in the original request if it is a path or a hub's id, and the family comes from the model's files."""
    asked: dict[str, Any] = {}
    """The fields of the request as it was sent, before any choice; empty: not known."""
    aliases: tuple[str, ...] = ()
    """Further names of the deployment in requests."""
    applied_from: str | None = None
    """The set of models of `xinference apply` that has started the deployment; None: another command has."""
    on_demand: bool = False
    """The first request loads the model; it is unloaded when it is idle or its memory is needed."""
    ttl: float | None = None
    """Idle seconds before the model is unloaded; 0: only when its memory is needed; None: the setting's value."""
    pin: bool = False
    """The model is never unloaded for another one."""
    priority: int = 0
    """A model of lower priority is unloaded first."""
    options: dict[str, Any] = {}
    """Engine options, by the engine's own names."""


def decode_request(stored: str | bytes) -> LaunchRequest:
    """A request that was stored as JSON.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return msgspec.json.decode(stored, type=LaunchRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
