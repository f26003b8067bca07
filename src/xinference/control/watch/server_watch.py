"""The stream of changes of one server, with all its topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xinference.control.controller import Controller
from xinference.control.devices import DeviceReader
from xinference.control.stats import Sampler
from xinference.control.watch.changes import Changes
from xinference.control.watch.device_source import DeviceSource
from xinference.control.watch.model_sources import DownloadSource, LaunchSource, ModelSource
from xinference.control.watch.request_sources import RequestSource, StatsSource
from xinference.control.watch.rows import encode
from xinference.control.watch.watch import Watch
from xinference.keys.keyring import Keyring
from xinference.records.hub import RecordHub
from xinference.records.record import LOCAL_NODE
from xinference.routing.active_requests import ActiveRequests

#: The beginning of the uid of a download's events.
_DOWNLOAD = "download:"


def server_watch(
    controller: Controller,
    hub: RecordHub,
    running: ActiveRequests,
    sampler: Sampler,
    keys: Keyring,
    devices: DeviceReader,
    node_names: Callable[[], Mapping[str, str]] = dict,
) -> Watch:
    """The watch over all parts of a server; `node_names` has the names of a cluster's nodes by their ids."""
    watch = Watch(
        (
            ModelSource(controller, node_names),
            LaunchSource(controller),
            DownloadSource(controller.downloads),
            RequestSource(hub, running, lambda: {key.key_id: key.name for key in keys.all()}),
            StatsSource(sampler),
            DeviceSource(devices),
        ),
        controller.stop_notice,
        counts=controller.counts,
    )
    controller.event_log.subscribe(lambda uid, event: _add_event(watch.changes, uid, event))
    return watch


def _add_event(changes: Changes, uid: str, event: dict[str, Any]) -> None:
    """Add an event of a model, or of a download, which only the followers of downloads get."""
    is_download = uid.startswith(_DOWNLOAD)
    name = uid.removeprefix(_DOWNLOAD) if is_download else uid
    fields = {field: event[field] for field in ("event_id", "event_ts", "event_type", "stage", "event_content")}
    about = {"cache_uid": name} if is_download else {"model_uid": name}
    data = encode({"node": LOCAL_NODE, **about, **fields, "problem": event["problem"]})
    changes.add("downloads" if is_download else "events", "event", data, None if is_download else name)
