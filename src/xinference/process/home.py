"""Ownership of a home by one server, which writes its endpoint and the key of the home's user to files there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import InUse
from xinference.files.private_file import write_private
from xinference.files.small_file import read_small_object
from xinference.files.write_errors import write_problem
from xinference.hosts import host_in_url
from xinference.process.link import private_run_dir
from xinference.process.run_folders import LOCK_NAME, delete_unused_run_dirs, release_run_dir
from xinference.process.scratch import delete_unused_scratch

log = logging.getLogger(__name__)

#: How often and in which intervals a lock is tried that another process may hold for a moment: see `is_free`.
LOCK_TRIES = 5
LOCK_TRY_SECONDS = 0.02


@contextlib.contextmanager
def own_home(settings: Settings, program: str = "server") -> Iterator[None]:
    """Create the home if it is missing, and lock it: two servers with the same rows would start engines twice.

    `program` is the word for the process that locks it.

    The lock is on the folder of the home itself. A lock file could be deleted under a running server, above all in a
    temporary folder that the system cleans up.

    Raises:
        InUse: another server has locked it.
        Problem: the folder cannot be created or opened.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(settings.home, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise write_problem(error, settings.home) from None
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, folder)
        try:
            _lock(folder)
        except BlockingIOError:
            raise _in_use(settings, program) from None
        except OSError:  # a network file system that locks only files
            try:
                _lock_file(settings, settings.home / "server.lock", opened, program)
            except OSError as error:
                raise write_problem(error, settings.home) from None
        with contextlib.suppress(OSError):
            run_dir = private_run_dir(settings)
            # A server of an earlier release locks this file only.
            _lock_file(settings, run_dir / LOCK_NAME, opened, program)
            # systemd-tmpfiles does not clean up a locked folder.
            sockets = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, sockets)
            fcntl.flock(sockets, fcntl.LOCK_SH | fcntl.LOCK_NB)
            opened.callback(release_run_dir, run_dir)
        delete_unused_run_dirs()
        delete_unused_scratch()
        _warn_of_other_users(settings.home, os.fstat(folder))
        yield


def _warn_of_other_users(home: Path, status: os.stat_result) -> None:
    """Log what a server and the owner of its home can do to each other, if they are different users."""
    if status.st_uid != os.geteuid():
        log.warning(
            "the home %s belongs to another user (uid %d): new files in it belong to this server's user (uid %d), and "
            "a server of its owner cannot open them",
            *(home, status.st_uid, os.geteuid()),
        )
    if status.st_mode & stat.S_IWOTH:
        log.warning(
            "every user of this machine can replace the database in %s: to prevent that, run: chmod o-w %s",
            *(home, shlex.quote(str(home))),
        )


def _lock_file(settings: Settings, path: Path, opened: contextlib.ExitStack, program: str) -> None:
    file = opened.enter_context(path.open("a"))
    try:
        _lock(file)
    except BlockingIOError:
        raise _in_use(settings, program) from None


def _lock(file: int | IO[str]) -> None:
    """Lock a file or folder.

    Raises:
        BlockingIOError: another process has locked it, and not only for a moment.
    """
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == LOCK_TRIES - 1:
                raise
            time.sleep(LOCK_TRY_SECONDS)
        else:
            return


def is_free(settings: Settings) -> bool:
    """Whether no server owns the home. The system frees the lock when its server's process has ended."""
    try:
        folder = os.open(settings.home, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # there is no home
        return True
    try:
        return _is_unlocked(folder) and _is_free_of_earlier_releases(settings)
    except OSError:  # a network file system that locks only files
        with contextlib.suppress(OSError), (settings.home / "server.lock").open("a") as file:
            return _is_unlocked(file)
        return True
    finally:
        os.close(folder)


def _is_free_of_earlier_releases(settings: Settings) -> bool:
    """Whether no server of an earlier release owns the home: it locks only the file among the sockets."""
    with contextlib.suppress(OSError), (settings.run_dir / LOCK_NAME).open() as file:
        return _is_unlocked(file)
    return True


def _is_unlocked(file: int | IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def other_server_problem(settings: Settings) -> InUse:
    """The problem of a server for whose home another one runs, with the process and the address of that one."""
    return _in_use(settings, "server")


def _in_use(settings: Settings, program: str) -> InUse:
    return InUse(
        Code.HOME_TAKEN,
        f"Another {'server' if program == 'server' else 'process'} uses {settings.home}{_other_server(settings)}.",
        hint="Use that server, or set XINFERENCE_HOME to another folder."
        if program == "server"
        else f"The {program} may run already. Another one on this machine needs another XINFERENCE_HOME.",
    )


def _other_server(settings: Settings) -> str:
    try:
        other = read_small_object(settings.server_file)
        pid, endpoint = int(other["pid"]), str(other["endpoint"])[:200]
        return f" (pid {pid}, {endpoint})" if endpoint.isprintable() else ""
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""


def announce(settings: Settings, host: str, port: int, owner_key: str) -> bool:
    """Write the endpoint of this home's server, and the key for commands of users who may read the home.

    Returns whether both files are written. If they cannot be, for example on a full disk, that is logged: the server
    serves without them, and the caller tries again.
    """
    try:
        write_private(settings.owner_key_file, owner_key.encode())
        address = {"pid": os.getpid(), "endpoint": f"http://{host_in_url(host)}:{port}"}
        write_private(settings.server_file, json.dumps(address).encode())
    except OSError as error:
        log.warning("the server is not announced yet: %s", write_problem(error, settings.home))
        return False
    return True


def withdraw(settings: Settings) -> None:
    """Delete the files of `announce`."""
    for file in (settings.server_file, settings.owner_key_file):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
