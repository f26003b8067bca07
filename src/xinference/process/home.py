"""Ownership of a home by one server, which writes its endpoint and the key of the home's user to files there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import InUse
from xinference.process.link import private_run_dir


@contextlib.contextmanager
def own_home(settings: Settings) -> Iterator[None]:
    """Lock the home for the block: two servers with the same rows would both start every engine.

    Raises:
        InUse: another server has locked it.
    """
    with (private_run_dir(settings) / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                Code.HOME_TAKEN,
                f"Another server uses {settings.home}{_other_server(settings)}.",
                hint="Use that server, or set XINFERENCE_HOME to another folder.",
            ) from None
        yield


def _other_server(settings: Settings) -> str:
    try:
        other = json.loads(settings.server_file.read_text())
        return f" (pid {other['pid']}, {other['endpoint']})"
    except (OSError, ValueError, KeyError):
        return ""


def announce(settings: Settings, host: str, port: int, owner_key: str) -> None:
    """Write the endpoint of this home's server, and the key for commands of users who may read the home."""
    named = f"[{host}]" if ":" in host else host
    _write_private(settings.owner_key_file, owner_key)
    _write_private(settings.server_file, json.dumps({"pid": os.getpid(), "endpoint": f"http://{named}:{port}"}))


def withdraw(settings: Settings) -> None:
    """Delete the files of `announce`."""
    settings.server_file.unlink(missing_ok=True)
    settings.owner_key_file.unlink(missing_ok=True)


def _write_private(file: Path, text: str) -> None:
    """Replace `file` atomically; only its owner may read it, from its first byte on."""
    draft = file.with_name(file.name + ".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
    draft.replace(file)
