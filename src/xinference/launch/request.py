"""What a user asked to run."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.catalog.models import ModelFamily


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked to run; everything but the model's name may be left to us."""

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
    """``auto``, a count for each replica, or None for the CPU only."""
    gpu_idx: tuple[int, ...] | None = None
    """The very devices, dealt out to the replicas in turn; wins over `n_gpu`."""
    replica: int = 1
    request_limits: int | None = None
    """Requests that the model takes at the same time, 0 or more; None: as many as come."""
    enable_thinking: bool | None = None
    """Whether a hybrid model thinks before it answers; None: what its chat template does."""
    envs: dict[str, str] = {}
    """Environment variables of the engine's processes."""
    family: ModelFamily | None = None
    """What the name means, where it is no built-in model: kept with the launch, so that it means the same later."""
    asked_name: str | None = None
    """The path or id that was given as the name of a model which its own files describe."""
    on_demand: bool = False
    """Loaded by its first request, and unloaded when it is idle or its room is needed."""
    ttl: float | None = None
    """Seconds without a request after which it is unloaded; 0: only when its room is needed; None: the setting's."""
    pin: bool = False
    """It does not leave for another model."""
    priority: int = 0
    """Of the models that may leave for another, the least leaves first."""
    options: dict[str, Any] = {}
    """Native engine options, by the engine's own names."""
