"""The topics of models, launches and downloads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from xinference.control.node_facts import node_names
from xinference.control.watch.rows import Reading, Row, encode
from xinference.control.watch.transfer_rate import TransferRates
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import DeploymentSnapshot, Status
from xinference.errors import Problem
from xinference.records.record import LOCAL_NODE

#: Names of the stages of a launch or load that goes on.
_GOING_ON = frozenset(("pending", "launching", "downloading", "loading"))
_ENDING = frozenset((Status.TERMINATING, Status.TERMINATED, Status.UNLOADING, Status.UNLOADED))


class Deployments(Protocol):
    """The controller, as these sources read it."""

    def deployments(self) -> Sequence[Deployment | BrokenDeployment]: ...

    def progress(self, uid: str) -> dict[str, Any]: ...


class DownloadList(Protocol):
    """The downloads, as this source reads them."""

    def unfinished(self) -> list[dict[str, Any]]: ...

    def entry(self, version_id: str) -> dict[str, Any]: ...


class ModelSource:
    """The launched models."""

    topic, seconds, is_list = "models", 0.5, True

    def __init__(self, controller: Deployments, node_names: Callable[[], Mapping[str, str]] = dict) -> None:
        """`node_names` has the names of a cluster's nodes by their ids; empty: there is no cluster."""
        self._controller = controller
        self._node_names = node_names
        self._names: Mapping[str, str] = {}
        self._known: dict[str, tuple[DeploymentSnapshot, Row]] = {}

    async def read(self) -> Reading:
        if (names := self._node_names()) != self._names:
            self._names = names
            self._known.clear()
        rows = [self._row(deployment) for deployment in self._controller.deployments()]
        uids = {row.key for row in rows}
        self._known = {uid: known for uid, known in self._known.items() if uid in uids}
        return Reading(tuple(rows))

    def _row(self, deployment: Deployment | BrokenDeployment) -> Row:
        """The row of a deployment, made again only if its snapshot is another one."""
        if isinstance(deployment, BrokenDeployment):
            return _model_row(deployment.uid, deployment.instance, self._names)
        uid, snapshot = deployment.uid, deployment.snapshot
        known = self._known.get(uid)
        if known is None or known[0] is not snapshot:
            known = self._known[uid] = (snapshot, _model_row(uid, deployment.instance, self._names))
        return known[1]


def _model_row(uid: str, instance: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    data = {"node": LOCAL_NODE, **instance}
    if names:
        named = [replica | {"node_names": node_names(replica, names)} for replica in instance["replicas"]]
        data |= {"replicas": named, "replica_statuses": named}
    return Row(uid, "model", encode(data), uid, gone=_gone("model_removed", model_uid=uid))


class LaunchSource:
    """The launches and loads that go on."""

    topic, seconds, is_list = "launches", 0.5, True

    def __init__(self, controller: Deployments, now: Callable[[], float] = time.monotonic) -> None:
        self._controller = controller
        self._rates = TransferRates()
        self._now = now

    async def read(self) -> Reading:
        rows = []
        for deployment in self._controller.deployments():
            if deployment.problem is not None or deployment.ready or deployment.status in _ENDING:
                continue
            progress = self._controller.progress(deployment.uid)
            if progress["stage"] in _GOING_ON:
                rows.append(self._row(deployment.uid, progress))
        self._rates.keep({row.key for row in rows})
        return Reading(tuple(rows))

    def _row(self, uid: str, progress: Mapping[str, Any]) -> Row:
        # Without the replicas, which are in the topic of models.
        data = {
            "node": LOCAL_NODE,
            "model_uid": uid,
            "stage": progress["stage"],
            "progress": progress["progress"],
            "download_files": _with_rates(self._rates, uid, progress["download_files"], self._now()),
        }
        return Row(uid, "launch", encode(data), uid, gone=_gone("launch_removed", model_uid=uid))


class DownloadSource:
    """The downloads that are not complete; one that becomes complete is sent once more."""

    topic, seconds, is_list = "downloads", 0.5, True

    def __init__(self, downloads: DownloadList, now: Callable[[], float] = time.monotonic) -> None:
        self._downloads = downloads
        self._rates = TransferRates()
        self._now = now
        self._known: frozenset[str] = frozenset()

    async def read(self) -> Reading:
        entries = {entry["cache_uid"]: entry for entry in self._downloads.unfinished()}
        ended = [uid for uid in self._known if uid not in entries]
        self._known = frozenset(entries)
        notes = [self._row(uid, entry) for uid in ended if (entry := self._entry(uid)) is not None]
        self._rates.keep(set(entries))
        return Reading(tuple(self._row(uid, entry) for uid, entry in entries.items()), tuple(notes))

    def _entry(self, uid: str) -> dict[str, Any] | None:
        try:
            return self._downloads.entry(uid)
        except Problem:  # it was removed from the list
            return None

    def _row(self, uid: str, entry: Mapping[str, Any]) -> Row:
        files = _with_rates(self._rates, uid, entry["download_files"], self._now())
        data = encode({"node": LOCAL_NODE, **entry, "download_files": files})
        return Row(uid, "download", data, gone=_gone("download_removed", cache_uid=uid))


def _with_rates(rates: TransferRates, name: str, files: Sequence[Mapping[str, Any]], now: float) -> list[Any]:
    """The files of a transfer with the rate of each."""
    return [
        {**file, **rates.figures(name, file["file_name"], file["bytes_done"], file["bytes_total"], now)}
        for file in files
    ]


def _gone(name: str, **fields: str) -> tuple[str, bytes]:
    return name, encode({"node": LOCAL_NODE, **fields})
