"""Terminal output: tables, problems, sizes. Results go to stdout, messages to stderr."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

INTERRUPTED = 130
#: Replaces the server's hint, which is about HTTP headers.
KEY_HINT = (
    "Pass a key with --api-key or XINFERENCE_API_KEY, or save one with "
    "`xinference login --username NAME --password KEY`."
)
#: Control characters except newline and tab: the text of a model or an engine must not control the terminal.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]
#: The program that wrote the last lines of a problem, if it is not an engine.
_WRITERS: dict[str, str] = {Code.SERVER_FAILED: "server", Code.ENVIRONMENT_FAILED: "installer"}


def clean(text: str) -> str:
    """`text` without control characters, so without escape sequences."""
    return text.translate(_CONTROLS)


def note(text: str) -> None:
    """A message on stderr; on a terminal its lines are broken between words."""
    click.echo(broken(clean(text)) if sys.stderr.isatty() else clean(text), err=True)


def broken(text: str) -> str:
    """`text` with lines as long as the terminal at most, broken between words; further lines are indented."""
    width = shutil.get_terminal_size().columns
    return "\n".join(_broken_line(line, width) for line in text.split("\n"))


def _broken_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    import textwrap

    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False)  # fmt: skip


def write(text: str) -> None:
    """Write text of a model or an engine to stdout at once: unchanged to a pipe or file, cleaned on a terminal."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def size(count: int | None) -> str:
    """Bytes in a readable unit: ``3.9 GiB``; ``unknown`` for None."""
    if count is None:
        return "unknown"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float) -> str:
    """A duration in its largest unit.

    >>> [duration(seconds) for seconds in (5, 90, 7200, 200000)]
    ['5 s', '1 min', '2 h', '2 d']
    """
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {name}"
    return f"{seconds:.0f} s"


def local_time(seconds: float | None) -> str | None:
    """A point in time, in seconds since the epoch, to the minute; None for None."""
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def size_in_billions(size: float | str | None) -> str | None:
    """The parameters of a model as people write them: ``0.5B``, ``7B``.

    >>> [size_in_billions(size) for size in (7, "1_8", "0_135", None)]
    ['7B', '1.8B', '0.135B', None]
    """
    return None if size is None else f"{str(size).replace('_', '.')}B"


def number_of_billions(size: object) -> float:
    """The number by which sizes are sorted; 0 if there is none.

    >>> [number_of_billions(size) for size in (7, "1_8", None)]
    [7.0, 1.8, 0.0]
    """
    try:
        return float(str(size).replace("_", "."))
    except ValueError:
        return 0.0


def show_problem(problem: Problem) -> None:
    """Show a problem on stderr: its cause, its hint and the last lines of the engine."""
    note(f"Error: {problem.cause}")
    lacks_key = problem.status == 401 and problem.code != Code.JOIN_TOKEN_REFUSED
    hint = KEY_HINT if lacks_key else problem.hint
    if problem.suggestions:
        note("What would fit:")
        for suggestion in problem.suggestions:
            note(f"  {suggestion.description}:")
            # Not broken into lines, so that it can be copied whole.
            click.echo(f"    {clean(suggestion.command)}", err=True)
    if hint:
        note(f"Hint: {hint}")
    if problem.log_tail:
        note(f"Last lines of the {_WRITERS.get(problem.code, 'engine')}:")
        for line in problem.log_tail:
            note(f"    {line}")


def show_json_problem(problem: Problem) -> None:
    """The problem as the one JSON document of a command with ``--json``."""
    try:
        print_json({"error": problem.to_dict()})
        sys.stdout.flush()
    except OSError:
        _discard_output()


@contextmanager
def report_problems(as_json: bool = False) -> Iterator[None]:
    """Show the problem that ends a command, and exit with 1, or with 130 after an interrupt.

    Args:
        as_json: print the problem on stdout as JSON, too.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except Problem as problem:
        show_problem(problem)
        if as_json:
            show_json_problem(problem)
        raise SystemExit(1) from None
    except click.UsageError as error:
        if as_json:
            show_json_problem(bad_request(error.format_message()))
        raise _broken_error(error) from None
    except BrokenPipeError:
        _discard_output()  # the reader (`head`, a pager) has closed the pipe
        raise SystemExit(1) from None
    except (KeyboardInterrupt, click.Abort):
        note("")
        raise SystemExit(INTERRUPTED) from None
    except (OSError, UnicodeError) as error:
        if _output_failed(error):
            _discard_output()
        failure = _from_system(error)
        show_problem(failure)
        if as_json:
            show_json_problem(failure)
        raise SystemExit(1) from None


def _broken_error(error: click.UsageError) -> click.UsageError:
    """The error with lines of the terminal's width; click breaks none."""
    if not sys.stderr.isatty() or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    beginning = "Error: "
    text = broken(beginning + clean(error.format_message())).removeprefix(beginning)
    return click.UsageError(text, error.ctx)


def _has_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _output_failed(error: OSError | UnicodeError) -> bool:
    """Whether stdout could not be written; an error of a file names the file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF) and not error.filename


def _discard_output() -> None:
    """Send further output nowhere: Python would report the error again when it flushes at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _from_system(error: OSError | UnicodeError) -> Problem:
    """The problem for an error of the operating system, or for text in a wrong encoding."""
    if isinstance(error, UnicodeError):
        return bad_request(f"A text has a character or byte that cannot be used: {error}.")
    reason = error.strerror or str(error)
    if _output_failed(error):
        return Problem(Code.SYSTEM_ERROR, f"The output can't be written: {reason}.")
    if error.errno == errno.ENOENT and error.filename is None and not _has_folder():
        cause = "The current folder does not exist any more."
        return Problem(Code.SYSTEM_ERROR, cause, hint="Change to a folder that exists, and repeat the command.")
    files = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return Problem(Code.SYSTEM_ERROR, f"{files}: {reason}." if files else f"{reason}.")
