"""`xinference logs` without a running server: the last lines of the logs in the home."""

from __future__ import annotations

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near, not_found
from xinference.process.log_links import joined, logs_of, uids_with_logs
from xinference.process.logs import read_tail

_MAX_SHOWN = 10


def engine_log(settings: Settings, uid: str, lines: int) -> str:
    """The last lines of each replica's last log.

    Raises:
        Problem: 404, with the uids that have logs.
    """
    paths = logs_of(settings.log_dir, uid)
    if not paths:
        known = uids_with_logs(settings.log_dir)
        similar = near(uid, known)
        listed = f"Models with a log: {', '.join(known[:_MAX_SHOWN]) or 'none'}."
        hint = f"Did you mean {join_names(similar)}?" if similar else listed
        raise not_found(
            f"No server runs, and {settings.log_dir} has no log of a model {uid!r}.",
            hint=hint,
            code=Code.MODEL_NOT_FOUND,
        )
    if not lines:
        return ""
    return joined({name: "".join(f"{line}\n" for line in read_tail(path, lines)) for name, path in paths.items()})


def server_log(settings: Settings, lines: int) -> str:
    """The last lines that the last server in the background has logged.

    Raises:
        Problem: there is none.
    """
    path = settings.log_dir / "server.log"
    if not path.exists():
        hint = "`xinference serve --background` writes this file; a server in a terminal writes its log there."
        raise Problem(Code.PATH_NOT_FOUND, f"No server runs, and there is no {path}.", hint=hint)
    return "".join(f"{line}\n" for line in read_tail(path, lines)) if lines else ""
