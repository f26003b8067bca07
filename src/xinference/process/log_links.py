"""Links to the last log of each replica by the model's uid, so that a log is found without a running server.

``logs/models/UID-rep1.log`` is the output of replica 1 of the model UID, for `tail` and for `xinference logs`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)
_FOLDER = "models"
_NAME = re.compile(r"(?P<uid>.+)-rep(?P<number>\d+)\.log", re.DOTALL)


def link_log(path: Path, uid: str, number: int) -> None:
    """Let the link of a replica point to the log of its new process. Without a link, the log has only its own name."""
    link = path.parent / _FOLDER / f"{uid}-rep{number}.log"
    new = link.with_name(f".{path.name}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(Path("..", path.name))
        new.replace(link)
    except OSError as error:
        log.warning("the log %s of %s gets no link: %s", path, uid, error.strerror)


def logs_of(folder: Path, uid: str) -> list[Path]:
    """The last log of each replica of a model, by the number of the replica."""
    return [path for _, path in sorted(_linked(folder).get(uid, {}).items())]


def uids_with_logs(folder: Path) -> list[str]:
    """The uids of the models that have a log, the last one first."""
    linked = {uid: max(path.stat().st_mtime for path in paths.values()) for uid, paths in _linked(folder).items()}
    return sorted(linked, key=lambda uid: -linked[uid])


def remove_dead_links(folder: Path) -> None:
    """Delete the links whose logs are deleted. Blocks."""
    with contextlib.suppress(OSError):
        for link in (folder / _FOLDER).iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink(missing_ok=True)


def _linked(folder: Path) -> dict[str, dict[int, Path]]:
    """Uid -> number of the replica -> its log."""
    linked: dict[str, dict[int, Path]] = {}
    with contextlib.suppress(OSError):
        for link in (folder / _FOLDER).iterdir():
            if (match := _NAME.fullmatch(link.name)) is not None and link.is_file():
                linked.setdefault(match["uid"], {})[int(match["number"])] = link.resolve()
    return linked
