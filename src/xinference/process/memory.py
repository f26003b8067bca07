"""The memory of an engine's processes, and the kernel's reports of exhausted memory. Linux; elsewhere unknown.

Standard library only, because the keeper imports it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
#: The kernel ends the process with the highest score first; an engine's children inherit this addition to theirs.
ENGINE_OOM_SCORE = 500
_KIB = 1024
_FIELD = re.compile(rb"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def private_bytes(pids: Iterable[int]) -> int:
    """Bytes of these processes that the kernel can't reclaim by dropping pages of files.

    Pages of mapped weight files do not count, swapped pages do. Pages that several processes share after a fork count
    in each of them, so the sum may be too high; `exact_private_bytes` is exact.
    """
    anonymous = shared = 0
    for pid in pids:
        fields = _fields(PROC / str(pid) / "status")
        anonymous += fields.get(b"RssAnon", 0) + fields.get(b"VmSwap", 0)
        shared = max(shared, fields.get(b"RssShmem", 0))
    return anonymous + shared


def exact_private_bytes(pids: Iterable[int]) -> int:
    """The same, with a shared page divided by the number of its processes; takes milliseconds for each GiB."""
    total = 0
    for pid in pids:
        fields = _fields(PROC / str(pid) / "smaps_rollup")
        total += sum(fields.get(name, 0) for name in (b"Pss_Anon", b"Pss_Shmem", b"SwapPss"))
    return total


def raise_oom_score() -> None:
    """Let the kernel end this process and its children before others of the user, such as the server."""
    path = PROC / "self" / "oom_score_adj"
    with contextlib.suppress(OSError, ValueError):
        if int(path.read_text()) < ENGINE_OOM_SCORE:
            path.write_text(str(ENGINE_OOM_SCORE))


def oom_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory, in this control group or else on this machine.

    None: the kernel does not tell.
    """
    for path in _oom_counters():
        with contextlib.suppress(OSError):
            if (found := re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)) is not None:
                return int(found[1])
    return None


def _oom_counters() -> Iterator[Path]:
    """Files with the counter, the closest to this process first."""
    groups = []
    with contextlib.suppress(OSError):
        groups = (PROC / "self" / "cgroup").read_text().splitlines()
    for line in groups:
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        # In a container the path may be one of the host; the root is then the container's own group.
        folders = dict.fromkeys((group.strip("/"), ""))
        if number == "0":
            yield from (CGROUPS / folder / "memory.events" for folder in folders)
        elif "memory" in controllers.split(","):
            yield from (CGROUPS / controllers / folder / "memory.oom_control" for folder in folders)
    yield PROC / "vmstat"


def _fields(path: Path) -> dict[bytes, int]:
    """Sizes in bytes by name; empty if the process has ended or the system has no such file."""
    if sys.platform != "linux":
        return {}
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    return {name: int(size) * _KIB for name, size in _FIELD.findall(text)}
