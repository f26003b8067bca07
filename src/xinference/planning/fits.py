"""Plans every version of the registry on every engine: which fits now, after models are unloaded, or never. Pure.

It is the plan of a launch that names model, size, format, quantization and engine: the same functions size it, with the
shape that a launch expects of weights that are not on this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source
from xinference.engines.base import Engine
from xinference.engines.support import Support
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.forecast import ShapeSource
from xinference.launch.match import versions_in_order
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import supports
from xinference.planning.expected_shape import expected_shape
from xinference.planning.occupancy import Available
from xinference.planning.sizing import size_launch

State = Literal["now", "after_unloading", "never"]
#: The plans here are only compared, never started.
_NO_PATH = Path()


class Fit(msgspec.Struct, frozen=True):
    """Whether one version fits on one engine."""

    version: ModelVersion
    engine: str | None
    """None: no engine runs the version."""
    state: State
    plan: SizedPlan | None = None
    """None: it fits never, its cache is only a guess that does not fit, or its size is not known."""
    unload: tuple[str, ...] = ()
    """The models to unload first."""
    reason: str | None = None
    """Why it fits never."""
    code: str | None = None
    """The error code of a launch that fits never."""
    source: ShapeSource | None = None
    weights_bytes: int | None = None
    """Expected bytes of the stored weights; None: no engine runs the version."""

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the API."""
        sizing = self.plan.sizing if self.plan else None
        return {
            **self.version.to_dict(),
            "engine": self.engine,
            "fits": self.state,
            "unload": self.unload,
            "memory_bytes": sizing.total_bytes if sizing else None,
            "context_length": sizing.context_length if sizing else None,
            "slots": sizing.slots if sizing else None,
            "weights_bytes": self.weights_bytes,
            "devices": self.plan.devices if self.plan else (),
            "memory_source": self.source,
            "reason": self.reason,
            "code": self.code,
        }


@dataclass(frozen=True)
class Memory:
    """The memory of this moment, and of those after models are unloaded."""

    now: Available
    after: Sequence[tuple[tuple[str, ...], Available]] = ()
    """Groups of models, the preferred first, and the memory without each; the last group is all models."""
    corrected: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Version id and engine -> the measured correction of a plan's memory."""


class _Launch(msgspec.Struct, frozen=True):
    """The launch of a version on an engine that runs it here."""

    launch: ResolvedLaunch
    engine: Engine
    shape: ModelShape
    source: ShapeSource


@dataclass(frozen=True, slots=True)
class _Known:
    """A family with its launches; a version that no engine runs here has its `Fit` already."""

    family: ModelFamily
    launches: tuple[_Launch | Fit, ...]


class FitFinder:
    """Finds the fits of one moment. All that does not depend on the free memory is kept for the next moment.

    One thread uses it at a time.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._machine: Host | None = None
        """The host without its free memory."""
        self._known: dict[str, _Known] = {}

    def find(self, families: Iterable[ModelFamily], host: Host, memory: Memory) -> Iterator[Fit]:
        """The fits of all versions of these families on all engines that support them."""
        machine = replace(host, memory_available=0, gpus=tuple(replace(gpu, memory_free=0) for gpu in host.gpus))
        if machine != self._machine:
            self._machine, self._known = machine, {}
        preparation = _Preparation(self._engines, machine)
        for family in families:
            known = self._known.get(family.model_name)
            if known is None or known.family is not family:  # an update of the catalog brings another family
                known = self._known[family.model_name] = _Known(family, tuple(preparation.launches(family)))
            for each in known.launches:
                yield each if isinstance(each, Fit) else _fit(each, memory)


class _Preparation:
    """Makes the launches of families on one machine."""

    def __init__(self, engines: Mapping[str, Engine], machine: Host) -> None:
        self._engines = engines
        self._machine = machine
        self._use_gpu = any(not gpu.mig for gpu in machine.gpus)
        self._request = LaunchRequest(model_name="")
        self._runs: dict[tuple[str, str, tuple[str, ...]], Support] = {}
        self._supported: dict[tuple[str, str, tuple[str, ...], str, str], Support] = {}

    def launches(self, family: ModelFamily) -> Iterator[_Launch | Fit]:
        """Each version of a family on each engine that supports it."""
        versions = versions_in_order(family)
        options = {name: self._options(engine, versions[0]) for name, engine in self._engines.items()}
        for version in versions:
            expected, hub = None, _source(version)
            reasons = []
            for name, engine in self._engines.items():
                supported = self._supports(engine, version)
                if supported:
                    expected = expected or expected_shape(version, hub)
                    yield self._launch(version, engine, hub, *expected, options[name])
                reasons.append(str(supported.reason))
            if expected is None:
                yield Fit(
                    version, None, "never", reason="; ".join(dict.fromkeys(reasons)), code=Code.ENGINE_UNSUPPORTED
                )

    def _launch(
        self,
        version: ModelVersion,
        engine: Engine,
        hub: Source,
        shape: ModelShape,
        source: ShapeSource,
        options: Mapping[str, Any] | Problem,
    ) -> _Launch | Fit:
        name, size = engine.table.engine, shape.weights_bytes
        runs = self._available(engine, version.spec)
        if not runs:
            return Fit(
                version,
                name,
                "never",
                reason=runs.reason,
                code=Code.ENGINE_UNAVAILABLE,
                source=source,
                weights_bytes=size,
            )
        if isinstance(options, Problem):
            return Fit(
                version, name, "never", reason=options.cause, code=options.code, source=source, weights_bytes=size
            )
        draft = LaunchDraft("", self._request, version, name, self._use_gpu, self._machine.physical_cores, options)
        chosen = engine.choose_files(hub, version, options)
        return _Launch(ResolvedLaunch(draft, hub, chosen.options), engine, shape, source)

    def _supports(self, engine: Engine, version: ModelVersion) -> Support:
        family = version.family
        named = version.spec.model_format, version.quantization
        key = (engine.table.engine, family.model_type, family.architectures, *named)
        if key not in self._supported:
            self._supported[key] = supports(engine, version)
        return self._supported[key]

    def _available(self, engine: Engine, spec: ModelSpec) -> Support:
        key = engine.table.engine, spec.model_format, spec.quantizations
        if key not in self._runs:
            self._runs[key] = engine.available(spec, self._machine)
        return self._runs[key]

    def _options(self, engine: Engine, version: ModelVersion) -> Mapping[str, Any] | Problem:
        """The options that the engine adds to a launch without options, or the reason against the launch."""
        if version.family.model_type not in engine.table.model_types:
            return {}
        try:
            return engine.complete_options(version, self._request, {})[0]
        except Problem as problem:
            return problem


def _fit(each: _Launch, memory: Memory) -> Fit:
    """Whether a launch fits in the memory of a moment."""
    version, name, source, size = each.launch.version, each.launch.engine, each.source, each.shape.weights_bytes
    most = memory.after[-1][1] if memory.after else memory.now
    try:  # the most memory first: most versions that do not fit now do not fit then either
        plan = _plan(each, memory, most)
    except Problem as problem:
        return Fit(version, name, "never", reason=problem.cause, code=problem.code, source=source, weights_bytes=size)
    if not memory.after:
        return Fit(version, name, "now", plan, source=source, weights_bytes=size)
    for uids, available in (((), memory.now), *memory.after[:-1]):
        with contextlib.suppress(Problem):
            plan = _plan(each, memory, available)
            state: State = "after_unloading" if uids else "now"
            return Fit(version, name, state, plan, uids, source=source, weights_bytes=size)
    return Fit(version, name, "after_unloading", plan, memory.after[-1][0], source=source, weights_bytes=size)


def _plan(each: _Launch, memory: Memory, available: Available) -> SizedPlan | None:
    """The plan of a launch; None: the guess of its cache does not fit, and its weights do.

    Raises:
        Problem: 400 ``does_not_fit``.
    """
    launch, shape, model = each.launch, each.shape, each.engine.memory
    if not shape.weights_bytes:
        return None  # the size is not known before the download
    if memory.corrected and not launch.use_gpu:
        correction = memory.corrected.get((launch.version.version_id, launch.engine))
        available = replace(available, correction_bytes=correction) if correction else available
    each.engine.check_weights(launch, shape)
    try:
        return size_launch(launch, _NO_PATH, shape, available, model)
    except Problem as problem:
        if problem.code != Code.DOES_NOT_FIT or each.source != "estimate":
            raise
    size_launch(launch, _NO_PATH, msgspec.structs.replace(shape, kv_bytes_per_token=0), available, model)
    return None


def _source(version: ModelVersion) -> Source:
    """The first hub with the version."""
    sources = version.spec.sources
    return next((source for source in sources if source.has(version.quantization)), sources[0])
