"""Progress of file operations: the callback that reports it, and the problem of a cancelled one."""

from __future__ import annotations

from collections.abc import Callable

from xinference.error_codes import Code
from xinference.errors import Problem

Progress = Callable[[int, int | None, str], None]
"""Called with the bytes done, the total bytes (None: unknown) and the file's name; often, in the fetching thread."""


def cancelled_problem(what: str, *, action: str = "Fetching", hint: str = "Launch again to continue.") -> Problem:
    """The problem of a file operation that was cancelled."""
    return Problem(Code.CANCELLED, f"{action} {what} was cancelled.", hint=hint)
