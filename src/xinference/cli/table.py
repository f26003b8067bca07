"""Tables on stdout. On a terminal they are as wide as the terminal at most; in a pipe, no value is cut."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from xinference.cli.output import clean

GAP = 2
#: Minimum width of a column that is cut.
MIN_WIDTH = 6
#: The columns with a state.
STATES = frozenset({"State", "Status"})
_NO_BREAK = "\N{NO-BREAK SPACE}"
#: The space between a number and its unit, where no line is broken.
_UNITS = re.compile(r"(?<=\d) (?=(?:B|KiB|MiB|GiB|TiB|s|min|h|d)\b)")
#: The colours of words about a state.
COLOURS = {
    "READY": "green",
    "ok": "green",
    "active": "green",
    "LOADING": "yellow",
    "CREATING": "yellow",
    "RECOVERING": "yellow",
    "TERMINATING": "yellow",
    "UNLOADED": "cyan",
    "ERROR": "red",
    "BROKEN": "red",
    "revoked": "red",
    "expired": "red",
}


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, wide: bool = False, optional: Sequence[str] = ()
) -> None:
    """A table on stdout; None is shown as ``-``.

    Args:
        wide: use as many columns of the terminal as the values need.
        optional: names of columns that are left out of a table that is too wide for the terminal, the first one first.
    """
    limit = None if wide or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    for line in table_lines(header, rows, limit, optional, coloured=use_colour()):
        click.echo(line)


def table_lines(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    limit: int | None,
    optional: Sequence[str] = (),
    *,
    coloured: bool = False,
) -> list[str]:
    """The lines of a table that has `limit` columns of the terminal; None: as many as the values need."""
    texts = [["-" if value is None else _UNITS.sub(_NO_BREAK, clean(str(value))) for value in row] for row in rows]
    first_cells = [text[0] for text in texts]
    names = long_names([list(header), *texts], limit, optional)
    texts = [["" if text[0] in names else text[0], *text[1:]] for text in texts] if names else texts
    shown = fitting_columns([list(header), *texts], limit, optional)
    head, *cells = shown
    widths = column_widths(shown, limit)
    lines = []
    for number, line in enumerate([head, ["-" * width for width in widths], *cells]):
        if number > 1 and first_cells[number - 2] in names:
            lines.append(first_cells[number - 2])
        for part in _lines(line, widths):
            text = (" " * GAP).join(part).rstrip()
            if coloured:
                text = click.style(text, bold=True) if number == 0 else _with_colours(text, line)
            lines.append(text.replace(_NO_BREAK, " "))
    return lines


def long_names(lines: Sequence[Sequence[str]], limit: int | None, optional: Sequence[str]) -> frozenset[str]:
    """The cells of the first column that get a line of their own, because the table is too wide with them.

    The cells of the first column are never cut: they are the names to type in other commands.
    """
    if limit is None or len(lines[0]) < 2:
        return frozenset()
    names: set[str] = set()
    for name in sorted({line[0] for line in lines[1:]}, key=len, reverse=True):
        left = [["" if line[0] in names else line[0], *line[1:]] for line in lines]
        widths = column_widths(fitting_columns(left, limit, optional), limit)
        if sum(widths) + GAP * (len(widths) - 1) <= limit:
            break
        names.add(name)
    return frozenset(names)


def use_colour() -> bool:
    """Whether stdout shows colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _with_colours(text: str, cells: Sequence[str]) -> str:
    for cell in cells:
        word = cell.split(" ")[0]
        if word in COLOURS:
            text = text.replace(word, click.style(word, fg=COLOURS[word]), 1)
    return text


def fitting_columns(lines: Sequence[Sequence[str]], limit: int | None, optional: Sequence[str] = ()) -> list[list[str]]:
    """The lines without as many of the optional columns as must be left out so that no word is cut."""
    left, rest = [list(line) for line in lines], list(optional)
    while limit is not None and rest and sum(_words(left)) + GAP * (len(left[0]) - 1) > limit:
        name = rest.pop(0)
        if name in left[0]:
            at = left[0].index(name)
            left = [[*line[:at], *line[at + 1 :]] for line in left]
    return left


def _words(lines: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column whose lines are broken between words; the first column's are not."""
    first, *others = zip(*lines, strict=True)
    return [max(map(len, first)), *(max(len(word) for cell in column for word in cell.split(" ")) for column in others)]


def column_widths(lines: Sequence[Sequence[str]], limit: int | None) -> list[int]:
    """The width of each column, so that a line has at most `limit` characters if that is possible.

    Columns are first made narrower by breaking lines between words, the widest one first. If that does not suffice,
    words are cut, except those of the first column, which holds the name to type in other commands.
    """
    natural = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if limit is None:
        return natural
    words = [max(len(word) for cell in column for word in cell.split(" ")) for column in zip(*lines, strict=True)]
    # A number is never cut: `87…` says nothing. Nor is a state, which others look for.
    is_whole = [
        column[0] in STATES or all(cell[:1] in "0123456789-" for cell in column[1:])
        for column in zip(*lines, strict=True)
    ]
    shortest = [word if whole else min(MIN_WIDTH, word) for word, whole in zip(words, is_whole, strict=True)]
    minimums: Mapping[int, list[int]] = {
        0: [natural[0], *words[1:]],
        1: [natural[0], *shortest[1:]],
    }
    widths = list(natural)
    for minimum in minimums.values():
        while sum(widths) + GAP * (len(widths) - 1) > limit:
            shrinkable = [column for column in range(len(widths)) if widths[column] > minimum[column]]
            if not shrinkable:
                break
            widths[max(shrinkable, key=lambda column: widths[column])] -= 1
    return widths


def _lines(cells: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """The lines of one row of the table."""
    wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    return [
        [(lines[at] if at < len(lines) else "").ljust(width) for lines, width in zip(wrapped, widths, strict=True)]
        for at in range(height)
    ]


def _wrap(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    lines = textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
