"""Copies that exist only when complete and verified."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import IO

from xinference.catalog.models import FileFacts
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.durability import sync_folder
from xinference.files.progress import Progress, cancelled_problem

_CHUNK = 1 << 20


def has_sha256(path: Path, sha256: str, cancelled: threading.Event) -> bool:
    """Whether the file exists and has this hash."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if cancelled.is_set():
                    raise cancelled_problem(path.name)
                digest.update(chunk)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == sha256


def write_whole(
    source: IO[bytes], target: Path, facts: FileFacts, progress: Progress, cancelled: threading.Event
) -> None:
    """Copy `source` to `target` so that `target` exists only if it is complete, verified and on the disk.

    The copy is written to a file in the same folder, which replaces the incomplete file of an earlier run.

    Raises:
        Problem: ``cancelled``, or ``hash_mismatch`` if size or hash differ from `facts`.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as file:
            _copy(source, file, target.name, facts, progress, cancelled)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)


def _copy(
    source: IO[bytes], file: IO[bytes], name: str, facts: FileFacts, progress: Progress, cancelled: threading.Event
) -> None:
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        if cancelled.is_set():
            raise cancelled_problem(name)
        done += len(chunk)
        if facts.size is not None and done > facts.size:
            raise hash_mismatch(f"{name} has more than its {facts.size} bytes.")
        file.write(chunk)
        digest.update(chunk)
        progress(done, facts.size, name)
    if facts.size not in (None, done):
        raise hash_mismatch(f"{name} has {done} bytes instead of {facts.size}.")
    if facts.sha256 not in (None, digest.hexdigest()):
        raise hash_mismatch(f"{name} has the sha256 {digest.hexdigest()} instead of {facts.sha256}.")


def hash_mismatch(cause: str) -> Problem:
    """The problem of a file that differs from the expected one."""
    return Problem(
        Code.HASH_MISMATCH,
        cause,
        hint="The file differs from the one in the model's entry: its source replaced it, or a mirror changed it.",
    )
