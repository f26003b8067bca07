"""Links to the last log of each replica by the model's uid, so that a log is found without a running server.

``logs/models/UID-rep0.log`` is the output of the first replica of the model UID, for `tail` and for `xinference logs`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)
_FOLDER = "models"
_REPLICA = re.compile(r"(?P<uid>.+)-rep(?P<number>\d{1,9})", re.DOTALL)
_SUFFIX = ".log"


def link_log(path: Path, uid: str, number: int) -> None:
    """Let the link of a replica point to the log of its new process. Without a link, the log has only its own name."""
    link = path.parent / _FOLDER / f"{replica_name(uid, number)}{_SUFFIX}"
    new = link.with_name(f".{path.name}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(Path("..", path.name))
        new.replace(link)
    except OSError as error:
        log.warning("the log %s of %s gets no link: %s", path, uid, error.strerror)


def replica_name(uid: str, number: int) -> str:
    """The name of a replica in requests and logs."""
    return f"{uid}-rep{number}"


def split_replica_name(name: str) -> tuple[str, int] | None:
    """The uid and the number in the name of a replica; None: it is no such name."""
    match = _REPLICA.fullmatch(name)
    return None if match is None else (match["uid"], int(match["number"]))


def logs_of(folder: Path, name: str) -> dict[str, Path]:
    """Name of a replica -> its last log: of each replica of the model with this uid, or of the replica of this name."""
    linked = _linked(folder)
    if name not in linked and (replica := split_replica_name(name)) is not None:
        uid, number = replica
        path = linked.get(uid, {}).get(number)
        return {} if path is None else {name: path}
    return {replica_name(name, number): path for number, path in sorted(linked.get(name, {}).items())}


def joined(texts: Mapping[str, str]) -> str:
    """The output of several replicas, each below a line with its name, as `tail` prints it."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "".join(heading(name) + text for name, text in texts.items())


def heading(name: str) -> str:
    """The line above the output of one of several replicas."""
    return f"==> {name} <==\n"


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
            replica = split_replica_name(link.name.removesuffix(_SUFFIX))
            if replica is not None and link.is_file():
                linked.setdefault(replica[0], {})[replica[1]] = link.resolve()
    return linked
