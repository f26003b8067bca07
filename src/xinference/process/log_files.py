"""Deletes the log files of engines that have exited. Each start of an engine writes a new file."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection
from pathlib import Path

from xinference.process.log_links import remove_dead_links

log = logging.getLogger(__name__)
#: Maximum number of logs of exited engines, in addition to the last one of each deployment.
LOGS_KEPT = 50
#: A log of an engine, or its older half.
_NAME = re.compile(r"(r[0-9a-f]{10}\.log)(\.1)?")


def remove_log(path: Path) -> None:
    """Delete the log of one engine, with its older half. A log that cannot be deleted is deleted later."""
    for file in (path, path.with_name(path.name + ".1")):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def remove_old_logs(folder: Path, in_use: Collection[Path]) -> None:
    """Delete all but the newest `LOGS_KEPT` logs of engines that are not in `in_use`. Blocks."""
    newest: dict[str, float] = {}
    try:
        for file in folder.iterdir():
            if (match := _NAME.fullmatch(file.name)) is not None and folder / match[1] not in in_use:
                newest[match[1]] = max(newest.get(match[1], 0.0), file.stat().st_mtime)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the logs in %s can't be listed: %s", folder, error.strerror)
        return
    for name in sorted(newest, key=lambda name: newest[name], reverse=True)[LOGS_KEPT:]:
        remove_log(folder / name)
    remove_dead_links(folder)
