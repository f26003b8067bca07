"""A download in a cluster: it is fetched by the cluster, so that no other machine asks the hub for the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.doubles import turns
from tests.engines.plans import launch_of
from xinference.catalog.models import ModelVersion, Source
from xinference.control.downloads import Downloads
from xinference.deployments.counts import Counts
from xinference.nodes.node import FetchReport
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.work_threads import LongWork

LAUNCH = launch_of()
VERSION, SOURCE = LAUNCH.version, LAUNCH.version.spec.sources[0]


class Hub:
    """A hub that is not asked for bytes."""

    def list_cached(self, version: ModelVersion, source: Source) -> list[Any]:
        return []


class Cluster:
    """Fetches once the test says so."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, version: ModelVersion, source: Source, report: FetchReport) -> Path:
        assert (version, source) == (VERSION, SOURCE)
        report.begin("fetch", "waiting for box1, which fetches it")
        await self.may_end.wait()
        report.count_from("peer")
        report.begin("fetch", "copying it from box1")
        report.progress("fetch", "tiny.gguf", 0, 10)
        report.progress("fetch", "tiny.gguf", 10, 10)
        return Path("tiny.gguf")


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def downloads(tmp_path: Path, cluster: Cluster, counts: Counts) -> Downloads:
    hubs: Any = {SOURCE.hub: Hub()}
    return Downloads(hubs, EventLog(Store(tmp_path / "x.db")), LongWork(60), counts, cluster)


async def test_a_download_is_fetched_by_the_cluster_which_names_the_source(
    downloads: Downloads, cluster: Cluster, counts: Counts
) -> None:
    uid = downloads.begin(VERSION, SOURCE, "asked")
    cluster.may_end.set()
    last = [event async for event in downloads.follow(uid)][-1]
    assert last["event_type"] == "READY" and last["model"]["path"] == "tiny.gguf"
    contents = [event["event_content"] for event in downloads.events(uid)]
    assert contents[1:3] == ["waiting for box1, which fetches it", "copying it from box1"]
    assert counts.downloaded == {"peer": 10}


async def test_a_download_that_waits_for_another_machine_can_be_cancelled(downloads: Downloads) -> None:
    uid = downloads.begin(VERSION, SOURCE, "asked")
    await turns()
    await downloads.cancel(uid)
    assert downloads.entry(uid)["status"] == "paused"


async def test_a_download_that_is_cancelled_before_its_task_begins_fetches_nothing(
    downloads: Downloads, cluster: Cluster
) -> None:
    cluster.may_end.set()
    uid = downloads.begin(VERSION, SOURCE, "asked")
    await downloads.cancel(uid)
    assert downloads.entry(uid)["status"] == "paused"
