"""Converts a plan's weights to a format that an engine loads. Blocking; run in a thread."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from xinference.catalog.models import ModelVersion
from xinference.config import Settings
from xinference.formats.convert import convert_ggml
from xinference.formats.llama_facts import facts_for

#: Version of the conversion: increased when its result changes, so that older results are not reused.
CONVERSION = 1
Progress = Callable[[int, int | None, str], None]


def convert_if_needed(
    settings: Settings, path: Path, version: ModelVersion, progress: Progress, cancelled: threading.Event
) -> Path:
    """The file that an engine can load: `path` itself, or its conversion, which is made once and cached.

    Raises:
        Problem: ``bad_weight_file``, ``disk_full``, ``cancelled``.
    """
    if version.spec.model_format != "ggmlv3" or _is_gguf(path):
        return path
    target = converted_path(settings, path, version)
    # An engine can read the file from the page cache before it is synced to the disk.
    return convert_ggml(path, target, facts_for(version), progress, cancelled, keep_existing=True, sync="after")


def converted_path(settings: Settings, path: Path, version: ModelVersion) -> Path:
    """The path of a file's conversion: the name depends on the file and on the facts that are added to it."""
    status = path.stat()
    identity = (str(path.resolve()), status.st_size, status.st_mtime_ns, facts_for(version), CONVERSION)
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:12]
    return settings.cache_dir / "converted" / f"{version.version_id}-{digest}.gguf"


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf"
