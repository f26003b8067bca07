"""Breaks a text that arrives in pieces into lines of the terminal's width, between words."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

#: A narrower terminal gets the text as it is.
MIN_WIDTH = 20
#: Punctuation that does not begin a line, in the wide forms of Chinese, Japanese and Korean texts.
CLOSING = frozenset("、。，．：；？！）］｝」』】〉》〕…・ー～")
FENCE = "```"


class WordWrap:
    """Adds line breaks to a text in pieces. Each character is shown at once; a word that does not fit moves to the next
    line when it reaches the end of its line. Wide characters need no space between them.

    Lines of code between fences are left as they are.
    """

    def __init__(self, width: Callable[[], int], column: int = 0) -> None:
        """
        Args:
            width: returns the columns of the terminal, which a user may change.
            column: the columns that are taken on the first line.
        """
        from rich.cells import cell_len

        self._cells = cell_len
        self._width = width
        self._column = column
        self._word = ""
        self._start = column
        """The column at which the word begins."""
        self._line_start = ""
        """The first characters of the line of the text, to find fences."""
        self._is_code = False

    def feed(self, piece: str) -> str:
        """The text and the control sequences for the terminal."""
        width = self._width()
        return "".join([self._shown(character, width) for character in piece])

    def _shown(self, character: str, width: int) -> str:
        if character == "\n":
            self._end_line()
            return character
        if len(self._line_start) < len(FENCE) and (self._line_start or not character.isspace()):
            self._line_start += character
        is_free = self._is_code or self._line_start == FENCE or width < MIN_WIDTH
        if character in " \t":
            self._word = ""
            return self._space(8 - self._column % 8 if character == "\t" else 1, character, width, is_free=is_free)
        if not self._word or self._is_break(character):
            self._word, self._start = "", self._column
        before, self._word = self._word, self._word + character
        cells = self._cells(character)
        if is_free or self._column + cells <= width:
            self._column = _column(self._column + cells, width)
            return character
        if self._start > 0 and self._cells(self._word) <= width:
            # The cursor stands in the last column after a character there, so it moves to a column and not back.
            erased = f"\x1b[{self._start + 1}G\x1b[K" if before else ""
            self._column, self._start = self._cells(self._word), 0
            return f"{erased}\n{self._word}"
        self._column = cells  # the terminal itself breaks a word that is longer than a line
        return character

    def _space(self, cells: int, character: str, width: int, *, is_free: bool) -> str:
        if not is_free and self._column + cells > width:
            self._column = width
            return ""
        self._column = _column(self._column + cells, width)
        return character

    def _end_line(self) -> None:
        self._column, self._word = 0, ""
        if self._line_start == FENCE:
            self._is_code = not self._is_code
        self._line_start = ""

    def _is_break(self, character: str) -> bool:
        """Whether a line may end between the word and the character, without a space."""
        if character in CLOSING:
            return False
        return self._cells(character) == 2 or (self._cells(self._word[-1]) == 2 and self._cells(character) > 0)


def _column(cells: int, width: int) -> int:
    """The column after so many cells from the beginning of a line; the terminal itself breaks longer ones."""
    return (cells - 1) % max(width, 1) + 1


def terminal_wrap(column: int = 0) -> WordWrap | None:
    """The line breaks for standard output; None: it is no terminal that can erase, so the text stays as it is."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return None
    return WordWrap(lambda: shutil.get_terminal_size().columns, column)
