"""What each topic reads: models, launches, downloads, requests and rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.records.samples import record
from tests.support.no_requests import NoRequests
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.devices import DeviceReader
from xinference.control.stats import Sampler
from xinference.control.watch.model_sources import DownloadSource, LaunchSource, ModelSource
from xinference.control.watch.request_sources import MAX_REQUESTS, RequestSource, StatsSource
from xinference.control.watch.rows import Reading, TopicState
from xinference.control.watch.server_watch import server_watch
from xinference.control.watch.transfer_rate import TransferRate
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.error_codes import Code
from xinference.errors import Problem, not_found
from xinference.keys.keyring import Keyring
from xinference.records.hub import RecordHub
from xinference.records.rates import Counts, Rates, Snapshot
from xinference.records.totals import Totals
from xinference.routing.active_requests import ActiveRequest
from xinference.store.database import Store


def data(reading: Reading) -> list[dict[str, Any]]:
    return [json.loads(row.data) for row in reading.rows]


def notes(reading: Reading) -> list[tuple[str, dict[str, Any]]]:
    return [(row.name, json.loads(row.data)) for row in reading.notes]


class Controls:
    """Deployments whose progress a test sets."""

    def __init__(self, **progress: dict[str, Any]) -> None:
        self._progress = progress
        self.problem: Problem | None = None
        self.status = "LOADING"
        self.ready = False

    def deployments(self) -> Any:
        return [Launched(uid, self.problem, self.status, self.ready) for uid in self._progress]

    def progress(self, uid: str) -> dict[str, Any]:
        return self._progress[uid]


class Launched:
    def __init__(self, uid: str, problem: Problem | None, status: str, ready: bool) -> None:
        self.uid, self.problem, self.status, self.ready = uid, problem, status, ready


def moving(stage: str, done: int) -> dict[str, Any]:
    file = {"file_name": "w.gguf", "bytes_done": done, "bytes_total": 1000, "progress": done / 1000}
    return {"progress": 0.1, "stage": stage, "download_files": [file], "replicas": [{"updated_at": 1.0}]}


async def test_a_failed_deployment_is_a_model_too() -> None:
    problem = Problem(Code.INTERNAL_ERROR, "broken row")

    class Broken:
        def deployments(self) -> list[BrokenDeployment]:
            return [BrokenDeployment("m", problem, 1.0)]

        def progress(self, uid: str) -> dict[str, Any]:
            return {}

    (row,) = (await ModelSource(Broken()).read()).rows
    entry = json.loads(row.data)
    assert (row.model, entry["node"], entry["model_uid"], entry["problem"]["cause"]) == (
        "m",
        "local",
        "m",
        "broken row",
    )


async def test_a_launch_has_its_rate_and_its_rest_while_it_goes_on() -> None:
    clock = [0.0]
    progress = {"m": moving("downloading", 100)}
    controls = Controls(**progress)
    source = LaunchSource(controls, lambda: clock[0])
    (first,) = data(await source.read())
    assert first["node"] == "local" and first["download_files"][0]["bytes_per_second"] is None
    clock[0], progress["m"] = 2.0, moving("downloading", 500)
    controls._progress = progress
    (file,) = data(await source.read())[0]["download_files"]
    assert (file["bytes_per_second"], file["seconds_left"], file["bytes_done"]) == (200.0, 2.5, 500)
    for stage in ("ready", "failed"):
        controls._progress = {"m": moving(stage, 1000)}
        assert data(await source.read()) == []
    controls._progress = {"m": moving("loading", 1000)}
    controls.status = "TERMINATING"
    assert data(await source.read()) == []
    controls.status, controls.problem = "ERROR", Problem(Code.INTERNAL_ERROR, "x")
    assert data(await source.read()) == []


async def test_a_download_that_becomes_complete_is_sent_once_more() -> None:
    class Downloads:
        def __init__(self) -> None:
            self.entries: dict[str, dict[str, Any]] = {
                "v": {"cache_uid": "v", "stage": "downloading", "download_files": []}
            }
            self.ended: dict[str, dict[str, Any]] = {}

        def unfinished(self) -> list[dict[str, Any]]:
            return list(self.entries.values())

        def entry(self, version_id: str) -> dict[str, Any]:
            if version_id not in self.ended:
                raise not_found("There is no download.", hint="", code=Code.DOWNLOAD_NOT_FOUND)
            return self.ended[version_id]

    downloads = Downloads()
    source = DownloadSource(downloads, lambda: 0.0)
    (entry,) = data(await source.read())
    assert entry == {"node": "local", "cache_uid": "v", "stage": "downloading", "download_files": []}
    downloads.ended, downloads.entries = {"v": {**entry, "stage": "ready"}}, {}
    reading = await source.read()
    assert data(reading) == [] and [(name, each["stage"]) for name, each in notes(reading)] == [("download", "ready")]
    assert notes(await source.read()) == []
    downloads.entries = {"w": {"cache_uid": "w", "stage": "paused", "download_files": []}}
    await source.read()
    downloads.entries = {}  # removed
    assert notes(await source.read()) == []


def active(request_id: str, key_id: str) -> ActiveRequest:
    return ActiveRequest(request_id, 0.0, key_id, "m", "r", "/v1/chat/completions", True, 1.0, 0.5, 7, "")


class Running(NoRequests):
    def __init__(self) -> None:
        self.requests: list[ActiveRequest] = []

    async def active(self) -> list[ActiveRequest]:
        return self.requests


async def test_requests_are_grouped_by_key_and_nothing_comes_twice() -> None:
    hub, running = RecordHub(), Running()
    source = RequestSource(hub, running, lambda: {"k": "mine"})
    hub.publish(record(request_id="before", key_id="k"))
    running.requests = [active("a", "k"), active("b", ""), active("c", "k")]
    state = TopicState(is_list=True)
    reading = await source.read()
    assert notes(reading) == []  # what ended before is in the list of requests
    rows = {row.key: (row.key_id, json.loads(row.data)) for row in state.changes(reading.rows)}
    assert rows["k"][1]["key"] == "mine" and [each["id"] for each in rows["k"][1]["requests"]] == ["a", "c"]
    assert rows[""][0] == "" and rows[""][1]["key_id"] is None and rows[""][1]["total"] == 1
    running.requests = [active("b", "")]
    hub.publish(record(request_id="a", key_id="k"))
    hub.publish(record(request_id="x", key_id="other"))
    reading = await source.read()
    (gone,) = list(state.changes(reading.rows))
    assert (gone.name, gone.key_id, json.loads(gone.data)["requests"]) == ("active", "k", [])
    ended = {row.key_id: json.loads(row.data) for row in reading.notes}
    assert [each["id"] for each in ended["k"]["requests"]] == ["a"] and ended["k"]["complete"] is True
    assert [each["id"] for each in ended["other"]["requests"]] == ["x"]
    assert notes(await source.read()) == []


async def test_more_requests_than_an_event_holds_are_said_to_be_incomplete() -> None:
    hub = RecordHub()
    source = RequestSource(hub, NoRequests(), dict)
    await source.read()
    for n in range(MAX_REQUESTS + 5):
        hub.publish(record(request_id=f"p-{n}"))
    ((name, each),) = notes(await source.read())
    assert (name, each["complete"], len(each["requests"])) == ("ended", False, MAX_REQUESTS)
    assert each["requests"][-1]["id"] == f"p-{MAX_REQUESTS + 4}"


async def test_the_newest_rates_are_sent() -> None:
    rates = Rates()

    class Sampler:
        async def read(self) -> Rates:
            return rates

    source = StatsSource(Sampler())
    assert data(await source.read()) == []
    rates.add(Snapshot(10.0, {"m": Counts()}, {"cpu": 0.5}))
    rates.add(Snapshot(12.0, {"m": Counts(requests=4, output=10)}, {"cpu": 0.25}))
    (entry,) = data(await source.read())
    assert (entry["node"], entry["time"], entry["host"]) == ("local", 12.0, {"cpu": 0.25})
    assert entry["all"]["requests_per_second"] == entry["models"]["m"]["requests_per_second"] == 2.0


@pytest.mark.parametrize(
    ("uid", "topic", "about", "model"),
    [("m", "events", {"model_uid": "m"}, "m"), ("download:v", "downloads", {"cache_uid": "v"}, None)],
)
async def test_a_stored_event_is_a_change(
    tmp_path: Path, uid: str, topic: str, about: dict[str, str], model: str | None
) -> None:
    store = Store(tmp_path / "x.db")
    controller = Controller(Settings(home=tmp_path, offline=True), store)
    sampler = Sampler(Totals(), NoRequests(), dict)
    watch = server_watch(controller, RecordHub(), NoRequests(), sampler, Keyring(store), DeviceReader(list, ()))
    controller.event_log.add(uid, "INFO", "start", "words")
    watch.changes.wake()
    (change,) = watch.changes.after(0) or []
    event = json.loads(change.event.split(b"data: ")[1])
    assert (change.topic, change.model, change.event.split(b"\n")[1]) == (topic, model, b"event: event")
    assert about.items() <= event.items() and event["event_content"] == "words" and event["problem"] is None
    store.close()


def test_the_rate_begins_again_with_the_next_file() -> None:
    rate = TransferRate()
    assert rate.add(0, 0.0) is None
    assert rate.add(100, 1.0) == 100.0
    assert rate.add(100, 20.0) == pytest.approx(0.0, abs=1e-9)
    assert rate.add(10, 21.0) is None
