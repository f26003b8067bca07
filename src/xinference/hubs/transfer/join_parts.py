"""Joins the parts of a file that a hub splits."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from xinference.files.locks import locked
from xinference.files.progress import Progress, cancelled_problem
from xinference.hubs.transfer.verified_copy import hash_mismatch

_CHUNK = 1 << 20


def join(parts: Sequence[Path], target: Path, progress: Progress, cancelled: threading.Event) -> Path:
    """Write the parts' bytes one after another to `target`, which exists only if it is complete and on the disk.

    Raises:
        Problem: ``cancelled``, or ``hash_mismatch`` if a part changed its size meanwhile.
    """
    total = sum(part.stat().st_size for part in parts)
    with locked(target.parent, cancelled, target.name):
        if not (target.is_file() and target.stat().st_size == total):
            _write(parts, target, total, progress, cancelled)
    return target


def _write(parts: Sequence[Path], target: Path, total: int, progress: Progress, cancelled: threading.Event) -> None:
    partial = target.with_name(f".{target.name}.partial")
    done = 0
    try:
        with partial.open("wb") as file:
            for part in parts:
                with part.open("rb") as opened:
                    while chunk := opened.read(_CHUNK):
                        if cancelled.is_set():
                            raise cancelled_problem(target.name)
                        file.write(chunk)
                        done += len(chunk)
                        progress(done, total, target.name)
            file.flush()
            os.fsync(file.fileno())
        if done != total:
            raise hash_mismatch(f"The parts of {target.name} have {done} bytes instead of {total}.")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
