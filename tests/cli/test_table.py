from __future__ import annotations

import os
from collections.abc import Sequence

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinference.cli import table
from xinference.cli.table import column_widths, fitting_columns, print_table, table_lines

HEADER = ["UID", "Reason", "Status"]
ROW = ["a-long-name-to-type", "vLLM runs pytorch, gptq, awq, not ggufv2", "READY"]


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int | None, *, wide: bool = False
) -> str:
    """The table on a terminal of so many columns, or in a pipe."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: columns is not None)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns or 80, 24)))
    print_table(HEADER, [ROW, [None, "", "x"]], wide=wide)
    return click.unstyle(capsys.readouterr().out)


def test_optional_columns_are_left_out_before_a_word_is_cut() -> None:
    lines = [["UID", "Engine", "Age", "Status"], ["a-long-name", "llama.cpp", "1 min", "UNLOADED"]]
    assert fitting_columns(lines, None, ["Age", "Engine"]) == lines
    assert fitting_columns(lines, 80, ["Age", "Engine"]) == lines
    assert [line[1:] for line in fitting_columns(lines, 34, ["Age", "Engine"])] == [
        ["Engine", "Status"],
        ["llama.cpp", "UNLOADED"],
    ]
    assert fitting_columns(lines, 10, ["Age", "Engine"]) == [["UID", "Status"], ["a-long-name", "UNLOADED"]]


def test_a_pipe_gets_every_value_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(monkeypatch, capsys, None).splitlines()[2] == "  ".join(ROW)


def test_a_narrow_terminal_gets_narrow_lines_with_whole_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, 50).splitlines()
    assert max(map(len, lines)) <= 50
    text = " ".join(" ".join(lines).split())
    assert "a-long-name-to-type vLLM runs pytorch," in text and "not ggufv2" in text
    assert max(map(len, shown(monkeypatch, capsys, 50, wide=True).splitlines())) > 50


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert table.use_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not table.use_colour()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert not table.use_colour()


@given(
    st.lists(st.lists(st.text("ab ", max_size=30), min_size=3, max_size=3), min_size=1, max_size=5),
    st.integers(60, 200),
)
def test_a_table_fits_if_its_first_column_does(lines: Sequence[Sequence[str]], limit: int) -> None:
    widths = column_widths(lines, limit)
    assert widths[0] == max(len(line[0]) for line in lines)
    assert sum(widths) + table.GAP * 2 <= limit


def test_a_state_is_whole_where_other_words_are_cut() -> None:
    header = ("UID", "Version", "Node", "Requests", "Tokens/s", "Status")
    row = ("smollm2-instruct", "smollm2-instruct 0.135B Q4_1", "nb5f48742a7f6,", "0", "0.8", "UNLOADED")
    lines = table_lines(header, [row], 62)
    assert max(map(len, lines)) <= 62 and "UNLOADED" in "".join(lines) and "…" in "".join(lines)
