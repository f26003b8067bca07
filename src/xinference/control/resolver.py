"""Resolves the name of a launch to a family: a built-in model, a registered one, or one derived from its files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec

from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.control.look_ups import LookUps
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
from xinference.hubs.base import Hub
from xinference.launch.name_tag import without_tag
from xinference.launch.request import LaunchRequest
from xinference.planning.memory import USABLE_SHARE
from xinference.weights.derivation import DerivedRequest, derive, requested_reference
from xinference.weights.reference import Reference
from xinference.work_threads import HubQuestions

#: Codes of problems with an unreachable hub: the cached look-up replaces the hub's answer.
_UNREACHABLE_CODES = (Code.OFFLINE, Code.HUB_UNREACHABLE, Code.HUB_TIMEOUT)
_DERIVED_FIELDS = ("family", "asked_name", "model_name", "model_type", "model_format", "quantization", "model_path")


class ModelResolver:
    """Resolves the name of a launch to a family, and caches the hub look-ups for offline use."""

    def __init__(
        self,
        settings: Settings,
        registrations: Registrations,
        hubs: Mapping[str, Hub],
        questions: HubQuestions | None = None,
        engines: Mapping[str, Engine] | None = None,
        *,
        stores_look_ups: bool = True,
        host: Callable[[], Awaitable[Host]] | None = None,
    ) -> None:
        """`host` reads the machine whose memory limits the choice among several files; None: this one."""
        self._settings = settings
        self._registrations = registrations
        self._hubs = hubs
        self._questions = questions or HubQuestions(settings.hub_seconds)
        self._engines = engines or {}
        self._stores_look_ups = stores_look_ups
        self.look_ups = LookUps(settings.cache_dir / "derived")
        self._host = host or _this_host

    async def resolve(
        self, request: LaunchRequest, running: LaunchRequest | None = None, *, any_file: bool = False
    ) -> DerivedRequest:
        """Add the family to a request whose name is not that of a model of this release.

        Args:
            running: the request of the deployment with the same uid: if it has the same name, its family is reused.
            any_file: choose the first of several files of a model; for calls that launch nothing.

        Raises:
            Problem: the files do not exist, or do not describe a model.
        """
        families = self._registrations.families
        request = without_tag(request, families)
        registered = self._registrations.find(request.model_name)
        if registered is not None and request.family is None:
            return DerivedRequest(msgspec.structs.replace(request, family=registered.family))
        updated = self._registrations.update(request.model_name)
        if updated is not None and request.family is None:
            # Stored with the launch: a rollback of the catalog does not touch it.
            return DerivedRequest(msgspec.structs.replace(request, family=updated))
        reference = requested_reference(request, families)
        if reference is None:
            return DerivedRequest(request)
        if running is not None and running.asked_name == request.model_name.strip():
            fields = {
                name: getattr(request, name) or getattr(running, name) for name in ("model_format", "quantization")
            }
            return DerivedRequest(msgspec.structs.replace(_with_derived_fields(request, running), **fields))
        return await self._look_up(request, reference, families, any_file=any_file)

    async def _look_up(
        self, request: LaunchRequest, reference: Reference, families: Collection[str], *, any_file: bool
    ) -> DerivedRequest:
        """Derive the family from the files, or take the cached look-up if the hub cannot be reached."""
        preferred = self._settings.model_src if self._settings.model_src in ("huggingface", "modelscope") else None
        try:
            derived = await self._questions.ask(
                derive,
                request,
                reference,
                list(families),
                self._hubs,
                preferred,
                any_quantization=any_file,
                usable_bytes=_usable_bytes(await self._host()),
                formats=self._formats(request.model_engine),
            )
        except Problem as problem:
            if problem.code not in _UNREACHABLE_CODES:
                raise
            cached = await asyncio.to_thread(self.look_ups.load, request)
            if cached is None:
                raise
            reason = f"{request.model_name}: from the cached look-up, because {problem.cause}"
            return DerivedRequest(_with_derived_fields(request, cached), (reason.rstrip("."),))
        if self._stores_look_ups and reference.model_id is not None and not any_file:
            await asyncio.to_thread(self.look_ups.save, request, derived.request)
        return derived

    def _formats(self, engine: str | None) -> frozenset[str]:
        """The formats that an engine runs; empty: no engine is named, or there is none of this name."""
        tables = (each.table for each in self._engines.values())
        return frozenset(next((table.formats for table in tables if engine and table.has_name(engine)), ()))


async def _this_host() -> Host:
    return await asyncio.to_thread(read_host)


def _usable_bytes(host: Host) -> int:
    """Bytes of a machine's memory that a model may use, on the host and on its GPUs."""
    return int((host.memory_total + sum(gpu.memory_total for gpu in host.gpus)) * USABLE_SHARE)


def _with_derived_fields(request: LaunchRequest, resolved: LaunchRequest) -> LaunchRequest:
    """The request with the derived fields of a resolved one."""
    return msgspec.structs.replace(request, **{name: getattr(resolved, name) for name in _DERIVED_FIELDS})
