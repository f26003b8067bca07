"""An answer at a terminal is broken between words, also when it arrives in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from xinference.cli.output import report_problems
from xinference.cli.word_wrap import WordWrap, terminal_wrap

ENGLISH = "The sky is blue because air scatters short wavelengths of sunlight more than long ones."
CHINESE = "天空是蓝色的，因为空气对短波长阳光的散射比长波长阳光更强。这种现象称为瑞利散射。"


def wrapped(pieces: Iterable[str], width: int = 30, column: int = 0) -> list[str]:
    """The lines that a terminal shows, without the spaces at their ends; it breaks no line itself."""
    wrap = WordWrap(lambda: width, column)
    lines = [" " * column]
    for text in re.split(r"(\n|\x1b\[\d+G\x1b\[K)", "".join([wrap.feed(piece) for piece in pieces])):
        if text == "\n":
            lines.append("")
        elif text.startswith("\x1b"):
            lines[-1] = first_cells(lines[-1], int(text[2 : text.index("G")]) - 1)
        else:
            lines[-1] += text
    return [lines[0][column:].rstrip(), *(line.rstrip() for line in lines[1:])]


def first_cells(line: str, cells: int) -> str:
    return next(line[:n] for n in range(len(line) + 1) if cell_len(line[:n]) == cells)


@pytest.mark.parametrize("width", [20, 30, 79, 80])
def test_lines_end_between_words(width: int) -> None:
    lines = wrapped([ENGLISH], width)
    assert " ".join(lines) == ENGLISH
    assert all(len(line) <= width for line in lines)
    assert all(len(line) + 1 + len(after.split()[0]) > width for line, after in pairwise(lines))


def test_wide_characters_take_two_columns_and_need_no_space() -> None:
    lines = wrapped([CHINESE], 20)
    assert "".join(lines) == CHINESE and len(lines) == 4
    assert all(cell_len(line) <= 20 for line in lines)
    assert not any(line.startswith(("，", "。")) for line in lines)
    assert wrapped(["中文 mixed with English 文字在一起"], 20) == ["中文 mixed with", "English 文字在一起"]


def test_the_first_line_begins_after_a_label() -> None:
    assert wrapped(["one two three four"], 20, column=11) == ["one two", "three four"]


def test_the_lines_of_the_text_stay() -> None:
    assert wrapped(["a\n\n  - b\n    c\n"]) == ["a", "", "  - b", "    c", ""]


def test_code_is_not_broken() -> None:
    line = "    print('this line is longer than the terminal is wide')"
    text = f"Run:\n```python\n{line}\n```\n{ENGLISH}"
    lines = wrapped([text])
    assert lines[:4] == ["Run:", "```python", line, "```"] and len(lines) > 6


def test_a_word_longer_than_a_line_is_left_to_the_terminal() -> None:
    address = "https://example.com/" + "a" * 40
    assert wrapped([f"See {address} now"], 30) == ["See", address, "now"]
    assert "".join(wrapped([address], 30)) == address


def test_a_narrow_terminal_gets_the_text_as_it_is() -> None:
    assert wrapped([ENGLISH], 10) == [ENGLISH]


@given(st.text(alphabet="ab \n中，`-"), st.lists(st.integers(0, 40)))
def test_pieces_of_any_size_give_the_same_lines_and_lose_nothing(text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert wrapped(pieces) == wrapped([text])
    assert "".join("".join(wrapped(pieces)).split()) == "".join(text.split())


def test_a_pipe_gets_the_text_as_it_is(capsys: Any) -> None:
    assert terminal_wrap() is None


def test_an_error_of_the_command_line_ends_its_lines_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    text = "Invalid value for '--priority': 'lo' is not one of 'high', 'normal', 'low'."
    with pytest.raises(click.UsageError) as caught, report_problems():
        raise click.UsageError(text)
    lines = f"Error: {caught.value.format_message()}".split("\n")
    assert len(lines) == 2 and max(map(len, lines)) <= 60 and " ".join(map(str.strip, lines)) == f"Error: {text}"
