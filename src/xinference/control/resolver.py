"""What the name of a launch means: a built-in model, a registered one, or files that describe themselves."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.launch.request import LaunchRequest
from xinference.weights.derivation import DerivedRequest, derive, requested_reference

log = logging.getLogger(__name__)
#: A hub that can't be asked now: what it said before is taken.
_NOT_NOW = ("offline", "hub_unreachable")
_FROM_DERIVED = ("family", "asked_name", "model_name", "model_type", "model_format", "quantization", "model_path")


class ModelResolver:
    """Finds out, and remembers what hubs' repositories were found to be: they can be launched offline then."""

    def __init__(self, settings: Settings, registrations: Registrations, hubs: Mapping[str, Hub]) -> None:
        self._settings = settings
        self._registrations = registrations
        self._hubs = hubs
        self._folder = settings.cache_dir / "derived"

    async def of(
        self, request: LaunchRequest, running: LaunchRequest | None = None, *, any_file: bool = False
    ) -> DerivedRequest:
        """The request with what its name means, where that is no built-in model.

        `running` is what runs under the same uid: the same name means the same there. With `any_file`, the first
        file of a model is as good as any other: nothing is launched.

        Raises:
            Problem: what can't be derived or found.
        """
        registered = self._registrations.find(request.model_name)
        if registered is not None and request.family is None:
            return DerivedRequest(msgspec.structs.replace(request, family=registered.family))
        families = self._registrations.families
        what = requested_reference(request, families)
        if what is None:
            return DerivedRequest(request)
        if running is not None and running.asked_name == request.model_name.strip():
            given = {
                name: getattr(request, name) or getattr(running, name) for name in ("model_format", "quantization")
            }
            return DerivedRequest(msgspec.structs.replace(_filled(request, running), **given))
        preferred = self._settings.model_src if self._settings.model_src in ("huggingface", "modelscope") else None
        try:
            found = await asyncio.to_thread(
                derive, request, what, list(families), self._hubs, preferred, any_quantization=any_file
            )
        except Problem as problem:
            kept = await asyncio.to_thread(self._recall, request) if problem.code in _NOT_NOW else None
            if kept is None:
                raise
            reason = f"{request.model_name}: as it was when it was last looked at, since {problem.cause}"
            return DerivedRequest(_filled(request, kept), (reason.rstrip("."),))
        if what.model_id is not None and not any_file:
            await asyncio.to_thread(self._keep, request, found.request)
        return found

    def kept_families(self) -> list[ModelFamily]:
        """What repositories were found to be, for whoever looks into the caches. Blocks."""
        found: dict[tuple[object, ...], ModelFamily] = {}
        for path in sorted(self._folder.glob("*.json")):
            kept = _read(path)
            if kept is not None and kept.family is not None:
                # A repository that was asked for in several ways is one.
                sources = (source for spec in kept.family.model_specs for source in spec.sources)
                found[kept.model_name, *((s.hub, s.model_id, s.revision) for s in sources)] = kept.family
        return list(found.values())

    def _keep(self, asked: LaunchRequest, found: LaunchRequest) -> None:
        path = self._path(asked)
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(found))
            draft.replace(path)
        except OSError as error:
            # Only an offline launch misses it.
            log.warning("what %s is can't be kept in %s: %s", asked.model_name, path, error.strerror)

    def _recall(self, asked: LaunchRequest) -> LaunchRequest | None:
        return _read(self._path(asked))

    def _path(self, asked: LaunchRequest) -> Path:
        """One file for all that the derivation depends on."""
        of = (asked.model_name.strip(), asked.model_type, asked.model_format, asked.quantization)
        key = (*of, asked.model_size_in_billions, asked.download_hub)
        return self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.json"


def _filled(request: LaunchRequest, found: LaunchRequest) -> LaunchRequest:
    return msgspec.structs.replace(request, **{name: getattr(found, name) for name in _FROM_DERIVED})


def _read(path: Path) -> LaunchRequest | None:
    """A kept file; a damaged one counts as none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LaunchRequest)
    except (OSError, msgspec.MsgspecError):
        return None
