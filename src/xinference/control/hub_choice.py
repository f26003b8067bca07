"""Chooses the hub of a version by caches, settings and reachability."""

from __future__ import annotations

import locale
from collections.abc import Mapping

from xinference.catalog.models import ModelVersion, Source
from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.choice import choose_hub
from xinference.hubs.reachability import reachable_for
from xinference.weights.fetch import cached_path
from xinference.work_threads import HubQuestions


class HubChooser:
    """Gathers the facts for `choose_hub`."""

    def __init__(self, settings: Settings, hubs: Mapping[str, Hub], questions: HubQuestions) -> None:
        self._settings = settings
        self._questions = questions
        self._hubs = hubs

    async def choose(self, version: ModelVersion, requested: str | None) -> tuple[Source, str]:
        """The source of a version and the reason for it; `requested` is the hub in the request, if it names one.

        Raises:
            Problem: see `choose_hub` and `HubQuestions.ask`.
        """
        return await self._questions.ask(self._choose, version, requested)

    def _choose(self, version: ModelVersion, requested: str | None) -> tuple[Source, str]:
        reach: Mapping[str, bool] = {}
        if not requested and not self._settings.model_src:  # probe the hubs only if nothing else decides
            reach = reachable_for(version, self._hubs, self._settings)
        cached: dict[str, bool] = {s.hub: cached_path(self._hubs, version, s) is not None for s in version.spec.sources}
        choice = choose_hub(
            version,
            requested=requested,
            setting=self._settings.model_src or None,
            cached=cached,
            reachable=reach,
            locale=locale.getlocale()[0],
        )
        return choice.source, choice.reason
