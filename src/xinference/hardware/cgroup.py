"""The limits of this process's control group: memory and processor time. Versions 2 and 1.

https://docs.kernel.org/admin-guide/cgroup-v2.html: every group limits the groups below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
#: Version 1 writes "no limit" as the largest multiple of a page, near 2^63.
_NO_LIMIT = 1 << 62
ReadText = Callable[[str], str | None]
"""The text of a file below the root of the control groups, or None if it does not exist."""


@dataclass(frozen=True)
class CgroupLimits:
    """The strictest limits on the path to the root; None: not limited."""

    memory_limit: int | None = None
    """Bytes."""
    memory_left: int | None = None
    """Bytes that can still be allocated: the limit less the memory in use that can't be reclaimed."""
    cpus: float | None = None
    """Processor time, in processors."""


def read_limits() -> CgroupLimits:
    """The current limits of this process."""
    try:
        own = OWN.read_text()
    except OSError:
        return CgroupLimits()
    return limits(own, _read_below_root)


def limits(own: str, read: ReadText) -> CgroupLimits:
    """The limits of the control groups in the text `own` of ``/proc/self/cgroup``."""
    memory = [values for group in _groups_v2(own) if (values := _memory_v2(group, read))]
    memory += [values for group in _groups_v1(own, "memory") if (values := _memory_v1(group, read))]
    times = [parse_cpu_max(read(f"{group}/cpu.max")) for group in _groups_v2(own)]
    times += [_cpus_v1(group, read) for group in _groups_v1(own, "cpu")]
    return CgroupLimits(
        memory_limit=min((limit for limit, _ in memory), default=None),
        memory_left=min((left for _, left in memory), default=None),
        cpus=min((time for time in times if time), default=None),
    )


def parse_bytes(text: str | None) -> int | None:
    """A number of bytes; None for ``max`` and equivalent values."""
    if text is None or not text.strip().isdigit():
        return None
    number = int(text)
    return number if number < _NO_LIMIT else None


def parse_cpu_max(text: str | None) -> float | None:
    """``cpu.max`` is a quota and a period in microseconds: ``150000 100000`` is 1.5 processors."""
    quota, _, period = (text or "").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def parse_stat(text: str | None, name: str) -> int:
    """One number of a ``memory.stat``; 0 if it does not exist."""
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _groups_v2(own: str) -> Iterator[str]:
    """Version 2's group and its parents, as folders below the root: ``/a/b``, ``/a``, and the root's empty name."""
    for line in own.splitlines():
        if line.startswith("0::"):
            yield from _upwards(line.removeprefix("0::"))


def _groups_v1(own: str, controller: str) -> Iterator[str]:
    for line in own.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number != "0" and controller in controllers.split(","):
            yield from (f"/{controllers}{group}" for group in _upwards(path))


def _upwards(path: str) -> Iterator[str]:
    # In a container the path may be one of the host that is not mounted here: its files are then missing, and
    # the root, which is the container's own group, comes last.
    for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield str(folder).rstrip("/")


def _memory_v2(group: str, read: ReadText) -> tuple[int, int] | None:
    return _memory(group, read, "memory.max", "memory.current", "inactive_file")


def _memory_v1(group: str, read: ReadText) -> tuple[int, int] | None:
    return _memory(group, read, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _memory(group: str, read: ReadText, limit: str, used: str, cache: str) -> tuple[int, int] | None:
    """The group's limit and its free memory, which includes unused cached file pages: the kernel reclaims them."""
    maximum = parse_bytes(read(f"{group}/{limit}"))
    if maximum is None:
        return None
    in_use = (parse_bytes(read(f"{group}/{used}")) or 0) - parse_stat(read(f"{group}/memory.stat"), cache)
    return maximum, max(0, maximum - max(0, in_use))


def _cpus_v1(group: str, read: ReadText) -> float | None:
    quota, period = read(f"{group}/cpu.cfs_quota_us"), read(f"{group}/cpu.cfs_period_us")
    return parse_cpu_max(f"{(quota or '').strip()} {(period or '').strip()}")


def _read_below_root(path: str) -> str | None:
    try:
        return Path(f"{ROOT}{path}").read_text()
    except OSError:
        return None
