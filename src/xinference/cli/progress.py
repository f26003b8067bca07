"""Shows a launch or a download: one line for each stage, and a progress bar for downloads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xinference.cli.output import broken, clean, note, size
from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

    from xinference.client import Client

Json = dict[str, Any]


def follow_launch(client: Client, uid: str) -> Json | None:
    """Show a launch on stderr until the model is ready; returns its description, if the last event has it.

    Raises:
        Problem: the launch failed or was cancelled, or the server died.
    """
    return show_events(client.follow_events(uid), uid)


def follow_download(client: Client, model_version: str) -> Json | None:
    """Show a download on stderr until it is complete; returns its path and size.

    Raises:
        Problem: the download failed or was cancelled, or the server died.
    """
    return show_events(client.follow_download(model_version), model_version)


def show_events(events: Iterable[Json], uid: str) -> Json | None:
    """Show events on stderr up to the last one; returns the ``model`` of a READY event."""
    display = new_display()
    stages = Stages(display)
    try:
        for event in events:
            match event.get("event_type"):
                case "READY":
                    stages.finish(event)
                    model: Json | None = event.get("model")
                    return model
                case "FAILED" | "SERVER_STOPPING":
                    raise _failure(uid, event)
                case "TERMINATED":
                    raise Problem(Code.LAUNCH_CANCELLED, f"{uid} was terminated while it was loading.")
                case _:
                    stages.show(event)
    finally:
        display.clear()
    raise AssertionError("the client ends a stream of events only after the last one")


def _failure(uid: str, event: Json) -> Problem:
    stage = event.get("stage")
    if event.get("problem"):
        problem = Problem.from_dict(event["problem"])
    else:
        problem = Problem(Code.LAUNCH_FAILED, event.get("event_content") or f"The launch of {uid} failed.")
    return problem.at(stage) if stage else problem


def new_display() -> LineDisplay:
    """A display for a terminal if stderr is one, else for a log."""
    return TerminalDisplay() if sys.stderr.isatty() else LineDisplay()


class LineDisplay:
    """A display for logs and pipes: whole lines only, and one for each tenth of a download."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}

    def line(self, text: str) -> None:
        note(text)

    def working(self, text: str) -> None:
        """Show the current activity; a log does not need it."""

    def progress(self, file: str, done: int, total: int | None) -> None:
        tenth = done * 10 // total if total else done >> 28  # of unknown length: one line for each 256 MiB
        if tenth > self._tenths.get(file, 0):
            self._tenths[file] = tenth
            note(f"  {file}: {size(done)}" + (f" of {size(total)} ({done * 100 // total} %)" if total else ""))

    def clear(self) -> None:
        """Remove bars and spinners."""


class TerminalDisplay(LineDisplay):
    """A display for terminals: a bar during a download, a spinner otherwise."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._spinner: Status | None = None

    def line(self, text: str) -> None:
        self._console.print(broken(clean(text)), markup=False, highlight=False, soft_wrap=True)

    def working(self, text: str) -> None:
        from rich.markup import escape

        if self._bars is not None:
            return
        if self._spinner is None:
            self._spinner = self._console.status("")
            self._spinner.start()
        self._spinner.update(escape(clean(text)))

    def progress(self, file: str, done: int, total: int | None) -> None:
        from rich.markup import escape

        if self._bars is None:
            self.clear()
            self._bars = self._new_bars()
            self._bars.start()
        if file not in self._tasks:
            self._tasks[file] = self._bars.add_task(escape(clean(file)), total=total, completed=done)
        self._bars.update(self._tasks[file], completed=done, total=total)

    def _new_bars(self) -> Progress:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        return Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def clear(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        if self._bars is not None:
            self._bars.stop()
        self._spinner, self._bars = None, None
        self._tasks.clear()


class Stages:
    """The current stage of a launch, its start, and its last message."""

    def __init__(self, display: LineDisplay) -> None:
        self._display = display
        self._stage: str | None = None
        self._since = 0.0
        self._now = 0.0
        self._message = ""

    def show(self, event: Json) -> None:
        """Show an event that is not the last one."""
        self._read_time(event)
        stage = event.get("stage")
        if stage and stage != self._stage:
            self.end()
            self._stage, self._since = stage, self._now
        content = event.get("event_content") or ""
        if event.get("event_type") in ("WARNING", "ERROR"):
            self._display.line(f"  {event['event_type'].capitalize()}: {content}")
            return
        if event.get("progress"):
            progress = event["progress"]
            self._display.progress(
                str(progress.get("file") or stage), progress.get("bytes_done") or 0, progress.get("bytes_total")
            )
            return
        self._message = content
        first_line = content.partition("\n")[0]
        self._display.working(f"{self._stage or ''}  {first_line}")

    def finish(self, event: Json) -> None:
        """Write the line of the last stage, which ends with this event."""
        self._read_time(event)
        self.end()

    def end(self) -> None:
        """Write the line of the stage that has ended."""
        if self._stage is not None:
            self._display.clear()
            elapsed = max(0.0, self._now - self._since)
            message, *further = self._message.split("\n")
            self._display.line(f"  {self._stage:<12} {elapsed:>7.1f} s  {message}".rstrip())
            for line in further:
                self._display.line(f"    {line}")
        self._stage, self._message = None, ""

    def _read_time(self, event: Json) -> None:
        """Use the server's clock, so that earlier events count too; this machine's clock if the event has no time."""
        at = event.get("event_ts")
        self._now = float(at) if isinstance(at, int | float) else time.time()
