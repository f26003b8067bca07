"""Lets a command that starts servers end them when it is ended itself."""

from __future__ import annotations

import signal


def end_as_ctrl_c() -> None:
    """Have SIGTERM and SIGHUP end the process as Ctrl-C does, through its `finally` blocks: `timeout` and a closed
    terminal send them, and by default no block runs."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)
