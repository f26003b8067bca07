"""The bars of a download in a terminal."""

import io

import pytest
from rich.console import Console

from xinference.cli.progress import TerminalDisplay


def test_the_bytes_of_an_earlier_run_are_no_part_of_the_shown_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    display = TerminalDisplay()
    monkeypatch.setattr(display, "_console", Console(file=io.StringIO(), force_terminal=True))
    display.progress("weights.gguf", 79 << 20, 94 << 20)
    assert display._bars is not None
    [task] = display._bars.tasks
    display.progress("weights.gguf", 80 << 20, 94 << 20)
    display.clear()
    assert task.completed == 80 << 20
    assert sum(sample.completed for sample in task._progress) <= 1 << 20
