"""A planned launch in the form of the API."""

from __future__ import annotations

from typing import Any

from xinference.launch.forecast import DiskNeed, Forecast, registered_files
from xinference.launch.place import Places, place_of
from xinference.launch.plan import ResolvedLaunch, SizedPlan, Sizing, replica_devices


def plan_entry(launch: ResolvedLaunch, sized: SizedPlan | None, forecast: Forecast | None = None) -> dict[str, Any]:
    """The output of `launch --dry-run`: the sized plan, or the forecast if the weights are not on this machine."""
    source = launch.source
    sizing = sized.sizing if sized else forecast.sizing if forecast else None
    places = sized.places if sized else forecast.places if forecast else ()
    reasons = sized.reasons if sized else (*launch.reasons, *_forecast_reasons(forecast))
    path = sized.path if sized else launch.origin if source is None else None
    files = forecast.files if forecast else registered_files(launch)
    return {
        "model_uid": launch.uid,
        "version": launch.version.version_id,
        "engine": launch.engine,
        "hub": source.hub if source else "local",
        "model_id": source.model_id if source else None,
        "revision": source.revision if source else None,
        "files": [{"name": name, "size": size} for name, size in files.files],
        "files_bytes": files.total_bytes,
        "files_source": files.source,
        "path": str(path) if path else None,
        "context_length": sizing.context_length if sizing else None,
        "slots": sizing.slots if sizing else None,
        "threads": launch.threads,
        "replica": launch.request.replica,
        "devices": [list(group) for group in replica_devices(places)],
        "places": _place_entries(places, launch.request.replica) if sizing else [],
        "tensor_parallel": sizing.tensor_parallel if sizing else None,
        "memory_fraction": sizing.memory_fraction if sizing else None,
        "memory": {
            **_memory_entry(sizing),
            "source": "file header" if sized else forecast.source if forecast else None,
        },
        "download_bytes": 0 if sized else forecast.download_bytes if forecast else None,
        "disk": [_disk_entry(need) for need in (forecast.disk if forecast else ())],
        "reasons": list(reasons),
        "options": dict(launch.options),
    }


def _memory_entry(sizing: Sizing | None) -> dict[str, int | None]:
    """The bytes of each part of a replica's memory; None: not known before the weights are here."""
    return {
        "weights": sizing.weights_bytes if sizing else None,
        "kv_cache": sizing.kv_cache_bytes if sizing else None,
        "overhead": sizing.overhead_bytes if sizing else None,
        "saved_states": sizing.state_bytes if sizing else None,
        "total": sizing.total_bytes if sizing else None,
        "loaded": sizing.loaded_bytes if sizing else None,
    }


def _disk_entry(need: DiskNeed) -> dict[str, Any]:
    return {
        "purpose": need.purpose,
        "folder": str(need.folder),
        "needed_bytes": need.needed_bytes,
        "free_bytes": need.free_bytes,
    }


def _place_entries(places: Places, replicas: int) -> list[dict[str, Any]]:
    """The machine and the GPUs of each rank of each replica, in the form of the API."""
    return [
        {"replica": number, "rank": rank, "node": part.node_id, "devices": list(part.devices)}
        for number in range(replicas)
        for rank, part in enumerate((place_of(places, number), *place_of(places, number).ranks))
    ]


def _forecast_reasons(forecast: Forecast | None) -> tuple[str, ...]:
    if forecast is None:
        return ()
    return (*forecast.notes, *(forecast.sizing.reasons if forecast.sizing else ()))
