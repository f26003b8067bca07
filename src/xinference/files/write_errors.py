"""The problem of a file or folder that cannot be written."""

from __future__ import annotations

import errno
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_problem(error: OSError, path: Path) -> Problem:
    """507 ``disk_full``, or 500 ``cannot_write``; `path` is named if the error names no file."""
    where = error.filename or path
    if is_disk_full(error):
        return Problem(Code.DISK_FULL, f"The disk of {where} is full.", hint="Free disk space, and retry.")
    if Path(where).is_symlink() and (isinstance(error, FileExistsError) or error.errno == errno.ELOOP):
        cause = f"{where} is a symbolic link to a folder that does not exist."
        return Problem(Code.CANNOT_WRITE, cause, hint="Create that folder, or correct the link.")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        cause = f"{where} is, or lies in, a file and not a folder."
        return Problem(Code.CANNOT_WRITE, cause, hint="Use another folder.")
    if error.errno == errno.EROFS:
        cause = f"{where} is on a file system that is mounted read-only."
        return Problem(Code.CANNOT_WRITE, cause, hint="Mount it for writing, or use another folder.")
    cause = f"{where} cannot be written: {error.strerror or error}."
    return Problem(Code.CANNOT_WRITE, cause, hint="Check the folder's owner and permissions, or use another folder.")
