"""A conversation at the terminal: one answer, or turns until the user ends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator

import click

from xinference.cli.conversation_commands import run_command
from xinference.cli.output import broken, clean, note, show_problem, write
from xinference.cli.prompt import Prompt
from xinference.cli.turns import Talk
from xinference.cli.word_wrap import terminal_wrap
from xinference.error_codes import Code
from xinference.errors import Problem

#: Maximum seconds to wait for a model that is loading.
LOADING_SECONDS = 300.0


def answer_once(talk: Talk, text: str, *, verbose: bool = False) -> None:
    """One request: the answer on stdout, the rest on stderr."""
    _show(_patient(talk, text))
    click.echo()
    for line in _notes(talk, verbose):
        note(line)


def converse(talk: Talk, banner: str, *, verbose: bool = False) -> None:
    """Run turns until the user leaves: an empty line, /exit, the end of the input, or Ctrl-C twice.

    Raises:
        SystemExit: the user left with Ctrl-C.
    """
    import readline  # noqa: F401 -- the import adds line editing to input()

    note(banner)
    for text in Prompt(talk.prompt_label):
        if text.startswith("/") and "\n" not in text:
            if not run_command(talk, text):
                return
            continue
        write(talk.answer_label)
        pieces = _patient(talk, text, talk.answer_label)
        try:
            _show(pieces, len(talk.answer_label))
        except KeyboardInterrupt:
            pieces.close()  # stops the answer; the conversation continues
        except Problem as problem:
            click.echo()
            show_problem(problem)
            if problem.code in (Code.NO_SERVER, Code.SERVER_GONE):
                note("The conversation is kept: repeat the message once a server answers; /save FILE writes it.")
            continue
        click.echo()
        for line in _notes(talk, verbose):
            click.echo(broken(line) if sys.stdout.isatty() else line)
        click.echo()


def _show(pieces: Iterator[str], column: int = 0) -> None:
    """Write an answer as it arrives; on a terminal its lines are broken between words.

    Args:
        column: the columns that are taken on the first line.
    """
    wrap = terminal_wrap(column)
    for piece in pieces:
        if wrap is None:
            write(piece)
        else:
            sys.stdout.write(wrap.feed(clean(piece)))
            sys.stdout.flush()


def _notes(talk: Talk, verbose: bool) -> list[str]:
    cut = talk.statistics.cut_note(talk.config.get("max_tokens"))
    return [line for line in (cut, talk.statistics.speed_note() if verbose else None) if line]


def _patient(talk: Talk, text: str, label: str = "") -> Generator[str, None, None]:
    """One turn, retried while the model is loading; no part of an answer has arrived then.

    Args:
        label: the text that stands before the answer on its line; it is repeated after the note about the model.
    """
    from xinference.client.answers import ModelLoading

    deadline = time.monotonic() + LOADING_SECONDS
    waiting = False
    while True:
        try:
            yield from talk.turn(text)
            return
        except ModelLoading as problem:
            if time.monotonic() + problem.retry_after > deadline:
                raise
            if not waiting:
                if label:
                    click.echo()
                # The server's advice when to ask again is for clients that do not wait.
                note(f"{problem.cause.partition(' Retry in ')[0]} Waiting …")
                write(label)
            waiting = True
            time.sleep(problem.retry_after)
