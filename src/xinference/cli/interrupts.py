"""Ctrl-C while a command waits for the server, which continues with a request when its client leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from xinference.cli.output import INTERRUPTED, note

T = TypeVar("T")


@contextmanager
def naming_what_continues(line: str) -> Iterator[None]:
    """At Ctrl-C, print `line` about what the server continues to do, and end the command."""
    try:
        yield
    except KeyboardInterrupt:
        note("")
        note(line)
        raise SystemExit(INTERRUPTED) from None


def confirms_cancel(question: str) -> bool:
    """Ask the user at a terminal; the interrupt of a script always cancels, and one of the question never does."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    note("")
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort:
        note("")
        return False


def answer_or_cancel(request: Callable[[], T], question: str, cancel: Callable[[T], None], continues: str) -> T:
    """The answer to `request`; at Ctrl-C, ask whether to cancel what it begins, which is possible after the answer.

    Args:
        request: sends the request, in a thread of its own.
        cancel: called with the answer if the user cancels; then the command ends.
        continues: the line at a second Ctrl-C, before the answer.
    """
    from concurrent.futures import Future
    from threading import Thread

    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(request())
        except Exception as error:  # noqa: BLE001 -- the waiting thread raises it
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()  # a daemon: the second Ctrl-C does not wait for it
    try:
        return answer.result()
    except KeyboardInterrupt:
        cancels = confirms_cancel(question)
    with naming_what_continues(continues):
        if cancels and not answer.done():
            note("Waiting for the answer of the server, to cancel …")
        answered = answer.result()
    if cancels:
        cancel(answered)
        raise SystemExit(INTERRUPTED)
    return answered
