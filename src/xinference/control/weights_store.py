"""The weights on this machine: lists, downloads and deletes the versions in the caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.control.downloads import Downloads
from xinference.control.planner import Planner
from xinference.deployments.deployment import Deployment
from xinference.errors import MODEL
from xinference.hubs.base import Hub
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import version_to_download
from xinference.weights import cache
from xinference.weights.fetch import cached_path
from xinference.work_threads import WorkThreads


class WeightsStore:
    """Lists, downloads and deletes cached weights; refuses to delete versions in use."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        registrations: Registrations,
        planner: Planner,
        downloads: Downloads,
        deployments: Callable[[], Iterable[Deployment]],
        files: WorkThreads,
    ) -> None:
        self._settings = settings
        self._hubs = hubs
        self._registrations = registrations
        self._planner = planner
        self._downloads = downloads
        self._deployments = deployments
        self._files = files

    async def cached(self, families: Iterable[ModelFamily] | None = None) -> list[cache.CachedVersion]:
        """The cached versions of these families, or of all; opens no connection."""
        return await self._files.run(self._cached, families)

    def _cached(self, families: Iterable[ModelFamily] | None) -> list[cache.CachedVersion]:
        if families is None:
            families = (*self._registrations.families.values(), *self._planner.resolver.look_ups.families())
        return cache.cached_versions(families, self._hubs, self._settings)

    async def complete_versions(self, families: Iterable[ModelFamily]) -> set[str]:
        """The ids of the families' versions whose weights are complete on disk; opens no connection."""
        return await self._files.run(self._complete_versions, families)

    def _complete_versions(self, families: Iterable[ModelFamily]) -> set[str]:
        return {
            version.version_id
            for version in cache.versions_of(families)
            if any(cached_path(self._hubs, version, s) for s in version.spec.sources if s.has(version.quantization))
        }

    async def remove(self, version_id: str) -> int:
        """Delete a version's files; returns the freed bytes.

        Raises:
            Problem: any problem of `cache.remove`.
        """
        versions = await self.cached()
        return await self._files.run(cache.remove, versions, version_id, self._hubs, self._all_uses())

    async def users(self, versions: Sequence[cache.CachedVersion], entries: Sequence[cache.CachedVersion]) -> list[str]:
        """The models and downloads that use the files of these entries, which belong to one version."""
        return await self._files.run(cache.users, versions, entries, self._all_uses())

    def _all_uses(self) -> list[cache.CacheUse]:
        downloads = (cache.CacheUse(f"the download of {v}", v, None) for v in self._downloads.running)
        return [*uses_of(self._deployments()), *downloads]

    async def download(self, request: LaunchRequest) -> str:
        """Start the download of a version without a launch; returns the version id, the key in `Downloads`.

        Raises:
            Problem: 400, the version does not exist; 409 ``download_running``, it is being fetched from another hub.
        """
        request = (await self._planner.resolver.resolve(request)).request
        facts = await self._planner.facts(request)
        version = version_to_download(facts, request)
        return self._downloads.begin(version, *await self._planner.hub_chooser.choose(version, request.download_hub))


def uses_of(deployments: Iterable[Deployment]) -> Iterator[cache.CacheUse]:
    """The files in the caches that these deployments use; a failed one uses none."""
    for deployment in deployments:
        if deployment.problem is None:
            plan = deployment.plan
            version_id = plan.version.version_id if plan.source else None
            yield cache.CacheUse(f"{MODEL}{deployment.uid}", version_id, _path(plan))


def _path(plan: LaunchPlan) -> Path | None:
    """The path of a launch's weights; None: they are not fetched yet."""
    if isinstance(plan, SizedPlan):
        return plan.path
    return plan.origin if isinstance(plan.origin, Path) else None
