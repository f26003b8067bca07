"""Downloads without a launch: one task for each version, with the same progress events as a launch."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xinference.catalog.models import ModelVersion, Source
from xinference.deployments.counts import Counts
from xinference.deployments.progress import transfer_entry
from xinference.error_codes import Code
from xinference.errors import Problem, defect, join_names, near, not_found
from xinference.files.progress import cancelled_problem
from xinference.hubs.base import Hub
from xinference.hubs.cached_files import total_size
from xinference.nodes.node import FetchReport, Step
from xinference.store.event_log import EventLog, final_event
from xinference.work_threads import LongWork

log = logging.getLogger(__name__)


@dataclass
class _Download:
    """The download of one version."""

    version: ModelVersion
    source: Source
    cancelled: threading.Event
    task: asyncio.Task[None] | None = None
    fetching: asyncio.Task[Path] | None = None
    """The fetch by the cluster; None: this machine fetches alone."""
    settled: dict[str, Any] | None = None
    """The final event; None: the download is running."""


class ClusterFetch(Protocol):
    """Fetches for this machine what no other machine fetches at the same time: `ClusterWeights.fetch_version`."""

    def __call__(self, version: ModelVersion, source: Source, report: FetchReport) -> Awaitable[Path]: ...


class Downloads:
    """Owns the downloads of this server and their results, until the server ends.

    Args:
        cluster: None: there are no other machines.
    """

    def __init__(
        self,
        hubs: Mapping[str, Hub],
        events: EventLog,
        work: LongWork,
        counts: Counts | None = None,
        cluster: ClusterFetch | None = None,
    ) -> None:
        self._cluster = cluster
        self._hubs = hubs
        self._work = work
        self._events = events
        self._counts = counts or Counts()
        self._jobs: dict[str, _Download] = {}

    def begin(self, version: ModelVersion, source: Source, reason: str) -> str:
        """Start the download of a version, unless it is running already; returns the version id.

        Raises:
            Problem: 409 ``download_running``, it is running from another hub; 400 ``hub_unavailable``.
        """
        version_id = version.version_id
        running = self._jobs.get(version_id)
        if running is not None and running.settled is None:
            if running.source == source:
                return version_id
            raise Problem(
                Code.DOWNLOAD_RUNNING,
                f"{version_id} is being fetched from {running.source.hub}.",
                hint="Wait for it or cancel it first.",
            )
        if source.hub not in self._hubs:
            raise Problem(Code.HUB_UNAVAILABLE, f"The hub {source.hub} is not available.")
        job = _Download(version, source, threading.Event())
        self._jobs[version_id] = job
        self._events.clear(_key(version_id))
        message = f"fetching {version_id} from {source.hub} ({source.model_id}): {reason}"
        self._events.add(_key(version_id), "INFO", "fetch", message)
        job.task = asyncio.create_task(self._run(job), name=f"download {version_id}")
        return version_id

    @property
    def running(self) -> list[str]:
        """The ids of the versions that are being fetched."""
        return [version_id for version_id, job in self._jobs.items() if job.settled is None]

    def events(self, version_id: str) -> list[dict[str, Any]]:
        """The stored events of a download, oldest first.

        Raises:
            Problem: 404 ``download_not_found``.
        """
        self._job(version_id)
        return self._events.stored(_key(version_id))

    def follow(self, version_id: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a download until it ends: READY, with the path in ``model``, or FAILED.

        Raises:
            Problem: 404 ``download_not_found``, with the known downloads.
        """
        return self._follow(self._job(version_id))

    async def cancel(self, version_id: str) -> None:
        """Stop a download; its incomplete files are not deleted, and the next download resumes from them.

        Raises:
            Problem: 404 ``download_not_found``, with the known downloads.
        """
        await _end(self._job(version_id))

    def resume(self, version_id: str) -> None:
        """Continue a download that was stopped or has failed.

        Raises:
            Problem: 404 ``download_not_found``, with the known downloads.
        """
        job = self._job(version_id)
        self.begin(job.version, job.source, "continued")

    async def remove(self, version_id: str) -> None:
        """Stop a download and forget it; its incomplete files are not deleted.

        Raises:
            Problem: 404 ``download_not_found``, with the known downloads.
        """
        job = self._job(version_id)
        await _end(job)
        if self._jobs.get(version_id) is job:
            del self._jobs[version_id]

    def unfinished(self) -> list[dict[str, Any]]:
        """The entries of all downloads that are not complete."""
        return [self.entry(uid) for uid, job in self._jobs.items() if _stage(job) != "ready"]

    def entry(self, version_id: str) -> dict[str, Any]:
        """A download in the form of the API.

        Raises:
            Problem: 404 ``download_not_found``, with the known downloads.
        """
        job = self._job(version_id)
        version, stage = job.version, _stage(job)
        transfer = self._events.transfer(_key(version_id))
        return {
            "kind": "cache",
            "cache_uid": version_id,
            "model_uid": version_id,
            "model_version": version_id,
            **version.to_dict(),
            "model_engine": None,
            "hub": job.source.hub,
            "status": stage,
            "stage": stage,
            "progress": 1.0 if stage == "ready" else round(transfer.share, 4) if transfer else 0.0,
            "download_files": [transfer_entry(transfer)] if transfer else [],
            "replicas": [],
            "error": (job.settled or {}).get("problem", {}).get("cause") if stage == "failed" else None,
            "resumable": stage in ("paused", "failed"),
        }

    async def close(self) -> None:
        """Stop all downloads."""
        await asyncio.gather(*(_end(job) for job in self._jobs.values()))

    async def _follow(self, job: _Download) -> AsyncIterator[dict[str, Any]]:
        # Read when the iteration starts: the event of a download that ended since the call is not sent again.
        async for event in self._events.follow(_key(job.version.version_id), job.settled):
            yield event

    async def _run(self, job: _Download) -> None:
        try:
            await self._finish(job, await self._fetch(job))
        except Problem as problem:
            self._fail(job, problem.at("fetch"))
        except Exception as error:
            # The task's outermost guard: a defect must be reported as FAILED, not end the task without an event.
            log.exception("download %s", job.version.version_id)
            self._fail(job, defect(error).at("fetch"))

    async def _fetch(self, job: _Download) -> Path:
        return await (self._fetch_alone(job) if self._cluster is None else self._fetch_once(job, self._cluster))

    async def _fetch_once(self, job: _Download, cluster: ClusterFetch) -> Path:
        """Fetch, or copy from another machine of the cluster."""
        cancelled = cancelled_problem(job.version.version_id, hint="Download again to continue.")
        if job.cancelled.is_set():  # before this task began
            raise cancelled
        report = _ClusterReport(self._events, self._counts, _key(job.version.version_id))
        job.fetching = asyncio.ensure_future(cluster(job.version, job.source, report))
        try:
            return await job.fetching
        except asyncio.CancelledError:
            if job.cancelled.is_set():
                raise cancelled from None
            raise

    async def _fetch_alone(self, job: _Download) -> Path:
        loop, key = asyncio.get_running_loop(), _key(job.version.version_id)

        count_bytes = self._counts.meter(job.source.hub)

        def progress(done: int, total: int | None, file: str) -> None:
            loop.call_soon_threadsafe(count_bytes, done)
            loop.call_soon_threadsafe(self._events.progress, key, "fetch", file, done, total)

        hub = self._hubs[job.source.hub]
        fetch = (hub.fetch, job.version, job.source, progress, job.cancelled)
        return await self._work.transfers.run(*fetch, cancelled=job.cancelled)

    async def _finish(self, job: _Download, path: Path) -> None:
        files = await self._work.files.run(self._hubs[job.source.hub].list_cached, job.version, job.source)
        model = {
            "model_version": job.version.version_id,
            "path": str(path),
            "real_path": str(path.resolve()),
            "size_bytes": total_size(files),
            "hub": job.source.hub,
            "model_id": job.source.model_id,
        }
        job.settled = final_event("READY", "fetched") | {"model": model}
        self._events.add(_key(job.version.version_id), "READY", "ready", "fetched", model=model)

    def _fail(self, job: _Download, problem: Problem) -> None:
        job.settled = final_event("FAILED", problem.cause) | {"problem": problem.to_dict(), "stage": problem.stage}
        self._events.add(_key(job.version.version_id), "FAILED", "fetch", problem.cause, problem=problem)

    def _job(self, version_id: str) -> _Download:
        job = self._jobs.get(version_id)
        if job is None:
            similar = near(version_id, self._jobs)
            known = ", ".join(self._jobs) or "none"
            raise not_found(
                f"There is no download of {version_id!r}.",
                hint=f"Did you mean {join_names(similar)}?" if similar else f"Downloads: {known}.",
                code=Code.DOWNLOAD_NOT_FOUND,
            )
        return job


class _ClusterReport:
    """The `FetchReport` of a download."""

    def __init__(self, events: EventLog, counts: Counts, key: str) -> None:
        self._events, self._counts, self._key = events, counts, key
        self._count_bytes: Callable[[int], None] | None = None

    def begin(self, step: Step, content: str | None) -> None:
        if content is not None:
            self._events.add(self._key, "INFO", step, content)

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        if self._count_bytes is not None:
            self._count_bytes(done)
        self._events.progress(self._key, step, file, done, total)

    def count_from(self, source: str) -> None:
        self._count_bytes = self._counts.meter(source)


def _stage(job: _Download) -> str:
    """The stage of a download: ``downloading``, ``ready``, ``paused`` or ``failed``."""
    if job.settled is None:
        return "downloading"
    if job.settled["event_type"] == "READY":
        return "ready"
    return "paused" if job.cancelled.is_set() else "failed"


def _key(version_id: str) -> str:
    """The key of a download's events. The event log stores them together with those of the deployments."""
    return f"download:{version_id}"


async def _end(job: _Download) -> None:
    """Stop the thread of a download by its flag, and wait for the task: a cancelled task would not stop the thread."""
    job.cancelled.set()
    if job.fetching is not None:
        job.fetching.cancel()
    if job.task is not None:
        await job.task
