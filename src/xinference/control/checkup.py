"""Checks this machine's resources and reports the effect of each missing one, for users. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from xinference import __version__
from xinference.config import ENV_PREFIX, Settings, misspelled
from xinference.engines.registry import ENGINES
from xinference.environments.environments import Environments
from xinference.errors import Problem, system_reason
from xinference.files.disk_space import free_bytes, nearest_existing
from xinference.hardware.devices import Host, read_host
from xinference.hubs.disk_folders import disk_folders
from xinference.hubs.reachability import reachable
from xinference.hubs.registry import all_hubs
from xinference.units import GIB

State = Literal["ok", "lack", "broken"]
#: Bytes of a 7B model in 4 bits, twice, for its download.
LITTLE_DISK = 10 * GIB
LITTLE_MEMORY = 4 * GIB
#: Instruction sets that engines' kernels use, oldest first.
SHOWN_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the report: the subject of the check, its state, and the effect of a missing resource."""

    about: str
    state: State
    found: str
    cost: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """The finding in the form of the API and of `doctor --json`."""
        return {"about": self.about, "state": self.state, "found": self.found, "cost": self.cost}


def examine(settings: Settings) -> list[Finding]:
    """Check all requirements of a launch. Blocks for some seconds while hubs are probed."""
    host = read_host()
    return [
        Finding("xinference", "ok", f"{__version__}, home {settings.home}"),
        *cpu_findings(host),
        *memory_findings(host),
        *gpu_findings(host),
        *_settings(os.environ),
        *_disk(settings),
        *_hubs(settings),
        *package_findings(),
        *_environments(settings),
    ]


def cpu_findings(host: Host) -> Iterator[Finding]:
    """Cores and instruction sets."""
    limit = host.limits.cpus
    cores = f"{host.physical_cores} cores" + (f" (the control group allows {limit:g})" if limit else "")
    numa = f", {host.numa_nodes} NUMA nodes" if host.numa_nodes > 1 else ""
    yield Finding("processor", "ok", f"{host.cpu_name or 'unnamed'}, {cores}{numa}")
    shown = [flag for flag in SHOWN_FLAGS if flag in host.cpu_flags]
    effects = {resource: _effects(host, resource) for resource in ("AVX2", "AVX-512")}
    cost = "; ".join(f"no {resource}: {', and '.join(each)}" for resource, each in effects.items() if each) or None
    yield Finding("instruction sets", "lack" if cost else "ok", ", ".join(shown) or "none that engines use", cost)


def _effects(host: Host, resource: str) -> list[str]:
    """The effects on engines if this host lacks a resource."""
    return [lack.effect for engine in ENGINES for lack in engine.lacks(host) if lack.resource == resource]


def memory_findings(host: Host) -> Iterator[Finding]:
    """Memory, and the limit of the control group."""
    limit = host.limits.memory_limit
    bound = f", limited to {_gib(limit)} by the control group" if limit else ""
    found = f"{_gib(host.memory_available)} free of {_gib(host.memory_total)}{bound}"
    little = host.memory_available < LITTLE_MEMORY
    yield Finding(
        "memory", "lack" if little else "ok", found, "a 7B model needs 4 to 5 GiB in 4 bits" if little else None
    )


def gpu_findings(host: Host) -> Iterator[Finding]:
    """NVIDIA devices and their driver."""
    if host.driver is not None:
        major, minor = host.driver.cuda
        yield Finding("NVIDIA driver", "ok", f"{host.driver.version}, runs CUDA up to {major}.{minor}")
    if not host.gpus:
        reason = host.no_gpu_reason or "none found"
        effects = [*_effects(host, "GPU"), "every model runs on the CPU, which is slower"]
        yield Finding("GPUs", "lack", f"none ({reason})", ", and ".join(effects))
    for gpu in host.gpus:
        capability = ".".join(map(str, gpu.compute_capability or ())) or "unknown"
        found = f"{gpu.name}, {_gib(gpu.memory_free)} free of {_gib(gpu.memory_total)}, compute capability {capability}"
        split = "it is split into MIG instances, so models are not placed on it" if gpu.mig else None
        yield Finding(f"GPU {gpu.index}", "lack" if split else "ok", found, split)


def _settings(env: Mapping[str, str]) -> Iterator[Finding]:
    """The settings that the environment has, by name, because a value may be a secret."""
    if given := sorted(name for name, text in env.items() if name.startswith(ENV_PREFIX) and text.strip()):
        wrong = [f"{name} has no effect; did you mean {setting}?" for name, setting in misspelled(env).items()]
        found = f"from the environment: {', '.join(given)}"
        yield Finding("settings", "lack" if wrong else "ok", found, "; ".join(wrong) or None)


def _disk(settings: Settings) -> Iterator[Finding]:
    folders = disk_folders(settings)
    for about, path in (("home", folders["home"]), ("cache", folders["cache"])):
        try:
            free = free_bytes(path)
        except OSError as error:
            found = f"{path} can't be read: {system_reason(error)}"
            yield Finding(f"disk of the {about}", "broken", found, "nothing can be stored in it")
            continue
        existing = nearest_existing(path)
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            reason = "this user cannot write to it" if existing.is_dir() else f"{existing} is not a folder"
            yield Finding(f"disk of the {about}", "broken", f"{path}: {reason}", "nothing can be stored in it")
            continue
        little = free < LITTLE_DISK
        cost = "a 7B model needs 4 GB in 4 bits, 13.5 GB in 16 bits" if little else None
        yield Finding(f"disk of the {about}", "lack" if little else "ok", f"{_gib(free)} free at {path}", cost)


def _hubs(settings: Settings) -> Iterator[Finding]:
    if settings.offline:
        cost = "only cached weights, or those of --model-path, can run"
        yield Finding("hubs", "lack", "not checked: XINFERENCE_OFFLINE is set", cost)
        return
    hubs = all_hubs(settings)
    answers = reachable(hubs.values(), settings)
    for name, answers_now in answers.items():
        effect = None if answers_now else "models that only this hub has can't be downloaded"
        yield Finding(f"hub {name}", "lack" if effect else "ok", "does not answer" if effect else "answers", effect)


def package_findings() -> Iterator[Finding]:
    """The engines that are packages of this installation, which is incomplete without them."""
    for engine in ENGINES:
        if engine.package is None:
            continue
        name, formats = engine.table.engine, " and ".join(engine.table.formats)
        try:
            yield Finding(name, "ok", f"{engine.package} {version(engine.package)}")
        except PackageNotFoundError:
            yield Finding(name, "broken", f"{engine.package} is not installed", f"{formats} models can't run")


def _environments(settings: Settings) -> Iterator[Finding]:
    try:
        entries = Environments(settings).entries()
    except Problem as problem:
        yield Finding("environments", "broken", str(problem), "the engines in them can't run")
        return
    installed = [(entry, entry.python.parents[1]) for entry in entries if entry.python is not None]
    for entry, folder in installed:
        # An outdated one has the name of its successor; `env remove` takes its folder.
        name, state = (
            (folder.name, "of another release, not used") if entry.is_outdated else (entry.spec.name, "installed")
        )
        yield Finding(f"environment {name}", "ok", f"{state}, {_gib(entry.size_bytes)}")
    if not installed:
        yield Finding("environments", "ok", "none: the first launch on an engine installs its environment")


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
