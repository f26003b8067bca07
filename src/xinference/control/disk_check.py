"""Refuses a launch whose files do not fit on the disk, before the first byte is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from xinference.catalog.models import ModelVersion
from xinference.error_codes import Code
from xinference.errors import Problem, Suggestion
from xinference.files.disk_space import RESERVE_BYTES
from xinference.launch.forecast import DiskNeed
from xinference.planning.eviction import format_size

FindSmaller = Callable[[Callable[[int], bool]], Sequence[Suggestion]]
"""Finds versions whose weights fit, given the test of their bytes."""


def check_disk(version: ModelVersion, needs: Sequence[DiskNeed], find_smaller: FindSmaller) -> None:
    """Check the needs of each disk together.

    Raises:
        Problem: 507 ``disk_full``, with the needed and the free bytes of the disk, and versions that fit.
    """
    for device in dict.fromkeys(_device(need.folder) for need in needs):
        on_disk = [need for need in needs if _device(need.folder) == device]
        needed, free = sum(need.needed_bytes for need in on_disk), min(need.free_bytes for need in on_disk)
        if needed + RESERVE_BYTES <= free:
            continue
        parts = " and ".join(f"{format_size(need.needed_bytes)} for the {need.purpose}" for need in on_disk)
        copies = sum(need.purpose != "environment" for need in on_disk) or 1
        found = find_smaller(partial(_fits, copies, free))
        raise Problem(
            Code.DISK_FULL,
            f"{version.version_id} needs {parts} on the disk of {on_disk[0].folder}, and {format_size(free)} are free.",
            stage="plan",
            hint="Free some space (`xinference cached` lists the models on the disk), or set HF_HOME, MODELSCOPE_CACHE "
            "or XINFERENCE_HOME to a folder on a larger disk.",
            suggestions=found,
        )


def _fits(copies: int, free: int, size: int) -> bool:
    return size * copies + RESERVE_BYTES <= free


def _device(folder: Path) -> int:
    return folder.stat().st_dev
