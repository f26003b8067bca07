"""`xinference top`: one screen about the server, read again every two seconds."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from xinference.cli import model_figures
from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.output import print_json
from xinference.cli.table import use_colour
from xinference.cli.top_screen import State, screen
from xinference.client.client import Client

#: The server samples its rates as often while somebody reads them.
SECONDS = 2.0
#: Control sequences of terminals: the second screen without a cursor, and the return to the first one.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--once", is_flag=True, help="Print one screen and end. This is the default without a terminal.")
@json_option
@with_server_options
def top(target: Target, once: bool, as_json: bool) -> None:
    """Monitor models, requests, tokens per second and memory on one screen.

    q or Ctrl-C ends it. The table shows planned and measured memory, on the host and on GPUs.
    """
    with target.connect() as client:
        if as_json:
            state = _read(client, target)
            rates = asdict(state.rates)
            print_json({"instances": state.instances, "rates": rates, "devices": state.devices or None})
        elif once or not sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            click.echo("\n".join(screen(_read(client, target), columns, coloured=use_colour())))
        else:
            _follow(client, target)


def _read(client: Client, target: Target) -> State:
    instances = client.list_instances()
    rates, devices = model_figures.newest_rates(client), model_figures.devices_of(client)
    return State(target.settings.url, time.strftime("%H:%M:%S"), instances, rates, devices)


def _follow(client: Client, target: Target) -> None:
    """Show the screen until a key ends it.

    Raises:
        Problem: the server has ended, or does not accept the key.
    """
    state = _read(client, target)  # a problem is shown on the first screen
    try:
        with _second_screen():
            while True:
                terminal = shutil.get_terminal_size()
                lines = screen(state, terminal.columns, terminal.lines, coloured=use_colour())
                text = "\r\n".join(line + _END_OF_LINE for line in lines)
                sys.stdout.write(f"{_HOME}{text}{_END_OF_SCREEN}")
                sys.stdout.flush()
                if _is_ended():
                    return
                state = _read(client, target)
    except KeyboardInterrupt:
        return


@contextmanager
def _second_screen() -> Iterator[None]:
    """Use the second screen of the terminal, and read its keys one by one; both ends with the block."""
    import termios  # not on Windows
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin) if os.isatty(stdin) else None
    try:
        if before is not None:
            tty.setcbreak(stdin)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _is_ended() -> bool:
    """Wait for the next screen; whether the key q was pressed, or the terminal was closed."""
    stdin = sys.stdin.fileno()
    if not os.isatty(stdin):
        time.sleep(SECONDS)
        return False
    until = time.monotonic() + SECONDS
    while (left := until - time.monotonic()) > 0:
        if select.select([stdin], [], [], left)[0]:
            keys = os.read(stdin, 64)
            if not keys or b"q" in keys.lower():
                return True
    return False
