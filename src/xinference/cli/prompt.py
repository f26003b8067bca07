"""Reads the messages of a user at the terminal."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

import click

from xinference.cli.output import INTERRUPTED, note, write

#: Maximum seconds between two parts of pasted text.
PASTE_SECONDS = 0.02


class Prompt:
    """Asks for the texts of the user, one after the other."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __iter__(self) -> Iterator[str]:
        interrupted = False
        while True:
            try:
                text = read_message(self._label)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                if interrupted:
                    raise SystemExit(INTERRUPTED) from None
                interrupted = True
                note("Ctrl-C again, Ctrl-D or /exit leaves the conversation.")
                continue
            interrupted = False
            if not text:
                return
            yield text


def read_message(label: str) -> str:
    """One message. Pasted lines are one message: the lines that have arrived together belong together."""
    try:
        text = input(label)
    except UnicodeDecodeError:
        note("This line is not UTF-8 text.")
        return read_message(label)
    while sys.stdin.isatty() and sys.stdout.isatty() and (rest := _pasted(sys.stdin.fileno())):
        write(rest)  # it came while input() showed what was typed, so the terminal has not shown it
        text += f"\n{rest}"
        if rest.endswith("\n"):
            break
        text += input()  # the user has not ended the last line yet
    return text.replace("\r", "\n").strip()


def _pasted(descriptor: int) -> str:
    """The rest of a pasted text, which input() has left in the terminal."""
    rest = b""
    while select.select([descriptor], [], [], PASTE_SECONDS)[0]:
        piece = os.read(descriptor, 65536)
        if not piece or piece == b"\x04":
            break
        rest += piece
    return rest.decode("utf-8", "replace").replace("\r", "\n")
