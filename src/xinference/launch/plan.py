"""`LaunchPlan`: everything decided about a launch, with the reason of each choice. A plain value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelVersion, Source
from xinference.launch.request import LaunchRequest


@dataclass(frozen=True)
class Sizing:
    """How much of the machine one replica takes; bytes and tokens."""

    context_length: int
    """Longest prompt, in tokens, that any slot answers."""
    slots: int
    """Requests computed at the same time, each with the whole context."""
    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    reasons: tuple[str, ...] = ()
    tensor_parallel: int = 1
    """Devices over which every layer is split."""
    memory_fraction: float | None = None
    """Share of each device's memory, as the engine counts it; None: the engine takes no such number."""
    file_pages_bytes: int = 0
    """Pages of the weight file beside a repacked copy of it: they go when something else needs the room."""
    later_bytes: int = 0
    """Part of cache and overhead that is touched only as the contexts fill."""
    correction_bytes: int = 0
    """Part of the overhead that an earlier measurement added (or took away)."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes

    @property
    def loaded_bytes(self) -> int:
        """What the engine's processes should hold once it is ready, before the first request."""
        return self.total_bytes - self.later_bytes + self.file_pages_bytes


@dataclass(frozen=True)
class LaunchPlan:
    """What will be fetched and started."""

    uid: str
    request: LaunchRequest
    """The request with every open choice filled in, so that planning it again gives the same."""
    version: ModelVersion
    engine: str
    source: Source | None
    """None: the weights are at `path` already."""
    path: Path | None
    """Weight file or folder, once it is known."""
    threads: int
    use_gpu: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    """Native engine options, checked, by the engine's own names."""
    sizing: Sizing | None = None
    """None until the weights' header has been read."""
    reasons: tuple[str, ...] = ()
    devices: tuple[tuple[int, ...], ...] = ()
    """Indices of each replica's GPUs; empty: the CPU."""

    def with_weights(
        self,
        path: Path,
        sizing: Sizing,
        told: tuple[str, ...] = (),
        devices: tuple[tuple[int, ...], ...] = (),
    ) -> LaunchPlan:
        """The same plan, now that the weights are here and their header is known."""
        return replace(self, path=path, sizing=sizing, reasons=self.reasons + told + sizing.reasons, devices=devices)

    def devices_of(self, position: int) -> tuple[int, ...]:
        """The GPUs of the replica at `position`; empty: the CPU."""
        return self.devices[position] if position < len(self.devices) else ()

    def to_dict(self) -> dict[str, Any]:
        """What `launch --dry-run` prints."""
        version, sizing = self.version, self.sizing
        return {
            "model_uid": self.uid,
            "version": version.version_id,
            "engine": self.engine,
            "hub": self.source.hub if self.source else "local",
            "model_id": self.source.model_id if self.source else None,
            "revision": self.source.revision if self.source else None,
            "files": self._files(),
            "path": str(self.path) if self.path else None,
            "context_length": sizing.context_length if sizing else None,
            "slots": sizing.slots if sizing else None,
            "threads": self.threads,
            "replica": self.request.replica,
            "devices": [list(group) for group in self.devices],
            "tensor_parallel": sizing.tensor_parallel if sizing else None,
            "memory_fraction": sizing.memory_fraction if sizing else None,
            "memory": {
                "weights": sizing.weights_bytes if sizing else None,
                "kv_cache": sizing.kv_cache_bytes if sizing else None,
                "overhead": sizing.overhead_bytes if sizing else None,
                "total": sizing.total_bytes if sizing else None,
                "loaded": sizing.loaded_bytes if sizing else None,
            },
            "reasons": list(self.reasons),
            "options": dict(self.options),
        }

    def _files(self) -> list[dict[str, Any]]:
        if self.source is None:
            return []
        quantization = self.version.quantization
        facts = self.source.facts.get(quantization)
        name = self.source.file_name(quantization)
        names = self.source.parts.get(quantization) or ((name,) if name else ())
        return [{"name": n, "size": facts.size if facts and len(names) == 1 else None} for n in names]
