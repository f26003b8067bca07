"""The end of a server or worker that stops its engines: a further signal kills them, and none breaks the end off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from xinference.process.leftovers import end_keepers

log = logging.getLogger(__name__)
#: Time in which engines usually stop, in seconds; a longer wait is reported.
REPORT_SECONDS = 1.0
#: Maximum time in which the keepers of stopped engines end by themselves, in seconds.
KEEPER_SECONDS = 2.0


def on_signals(act: Callable[[], object]) -> None:
    """From now on, SIGINT, SIGTERM and SIGHUP call `act` in the running event loop, and do nothing else.

    SIGHUP stays ignored if it is: `nohup` ignores it. A shell's background job ignores SIGINT, which is taken.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(each, act)


async def finish_stop(stop: Awaitable[object], hurried: asyncio.Event, run_dir: Path) -> None:
    """Wait until the engines have stopped, and kill what is left of them; without a wait once `hurried` is set.

    Args:
        stop: stops all engines.
        run_dir: the folder of the keepers' sockets.
    """
    stopping = asyncio.ensure_future(stop)
    waiting = asyncio.create_task(hurried.wait())
    done, _ = await asyncio.wait({stopping, waiting}, timeout=REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        log.info("waiting for the engines to end; Ctrl+C kills them")
        await asyncio.wait({stopping, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    left = await asyncio.to_thread(end_keepers, run_dir, 0.0 if hurried.is_set() else KEEPER_SECONDS)
    if left:
        log.warning("killed the engines that had not ended: %s", ", ".join(left))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping, KEEPER_SECONDS)
