"""Progress of file operations: the callback that reports it, and the problem of a cancelled one."""

from __future__ import annotations

from collections.abc import Callable

from xinference.errors import Problem

Progress = Callable[[int, int | None, str], None]
"""Called with bytes done, bytes in all (None: unknown) and the file's name; often, and from the fetching thread."""


def cancelled_problem(what: str, *, action: str = "Fetching", hint: str = "Launch again to go on.") -> Problem:
    """The problem of a file that was not finished, because its fetch or its writer was told to stop."""
    return Problem("cancelled", 499, f"{action} {what} was cancelled.", hint=hint)
