"""What the terminal shows: tables, problems, sizes. Answers go to stdout, everything about them to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from xinference.errors import Problem

INTERRUPTED = 130
#: The server's own hint tells of HTTP headers.
KEY_HINT = (
    "Give a key by --api-key or XINFERENCE_API_KEY, or keep one by `xinference login --username NAME --password KEY`."
)
#: Control characters but newline and tab: a model's or an engine's text must not drive the terminal.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]


def clean(text: str) -> str:
    """`text` without control characters and escape sequences' starts."""
    return text.translate(_CONTROLS)


def note(text: str) -> None:
    """One line on stderr."""
    click.echo(clean(text), err=True)


def write(text: str) -> None:
    """Foreign text on stdout, at once: as it is into a pipe or file, cleaned on a terminal."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their widest value, on stdout; None is shown as ``-``."""
    texts = [["-" if value is None else clean(str(value)) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [header, *texts]) for column in range(len(header))]
    for line in [header, ["-" * width for width in widths], *texts]:
        click.echo("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def size(count: int | None) -> str:
    """Bytes for people: ``3.9 GiB``; ``unknown`` for None."""
    if count is None:
        return "unknown"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def show_problem(problem: Problem) -> None:
    """A problem on stderr: its cause, the way out, the engine's last words."""
    note(f"Error: {problem.cause}")
    hint = KEY_HINT if problem.status == 401 else problem.hint
    if hint:
        note(f"Hint: {hint}")
    if problem.log_tail:
        speaker = {"server_failed": "server", "environment_failed": "installer"}.get(problem.code, "engine")
        note(f"Last lines of the {speaker}:")
        for line in problem.log_tail:
            note(f"    {line}")


@contextmanager
def shown_problems() -> Iterator[None]:
    """Show what ends a command in the user's words, and set the exit status that fits."""
    try:
        yield
        sys.stdout.flush()
    except Problem as problem:
        show_problem(problem)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader (`head`, a pager) has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (KeyboardInterrupt, click.Abort):
        note("")
        raise SystemExit(INTERRUPTED) from None
