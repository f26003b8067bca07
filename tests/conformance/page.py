"""The launch lines that a rendered model page implies: each spec's line, for every engine and quantization on it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = re.compile(
    r"^Model Spec (?P<number>\d+) .*?"
    r"\*\*Quantizations:\*\* (?P<quantizations>.*?)\n"
    r"- \*\*Engines\*\*: (?P<engines>.*?)\n.*?"
    r"^   (?P<line>xinference launch .*?)\n",
    re.MULTILINE | re.DOTALL,
)
ONLY = re.compile(r" \((?P<engines>.*) only available for quantization (?P<quantization>\S+)\)$")


@dataclass(frozen=True)
class LaunchLine:
    """One line, as a reader of the page would type it."""

    spec: int
    engine: str
    quantization: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def launch_lines(page: str) -> Iterator[LaunchLine]:
    """Every line of the page with its placeholders filled in, in the page's order."""
    for block in BLOCK.finditer(page):
        engines, only = _engines(block["engines"])
        for quantization in block["quantizations"].split(", "):
            for engine in engines:
                if engine in only and only[engine] != quantization:
                    continue
                line = block["line"].replace("${engine}", engine).replace("${quantization}", quantization)
                yield LaunchLine(int(block["number"]), engine, quantization, line)


def _engines(text: str) -> tuple[list[str], dict[str, str]]:
    """The engines of a spec, and those of them that take one quantization only."""
    only: dict[str, str] = {}
    if restricted := ONLY.search(text):
        only = dict.fromkeys(re.split(r" and |, ", restricted["engines"]), restricted["quantization"])
        text = text[: restricted.start()]
    return text.split(", "), only
