"""The fenced blocks of the documentation, and which of them a test runs.

A fence is ```` ```LANGUAGE ```` or ```` ```LANGUAGE not-run: REASON ````. Blocks in `sh` and `python` are run unless a
reason is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RUNNABLE = frozenset({"sh", "python"})
#: The languages of the other blocks: files, requests and results.
SHOWN = frozenset({"dockerfile", "ini", "js", "json", "mermaid", "nginx", "text", "toml", "yaml"})
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One fenced block: its page, the line of its fence (from 1), its language, and why no test runs it, or None."""

    page: Path
    line: int
    language: str
    reason: str | None
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and self.reason is None


def snippets(page: Path) -> list[Snippet]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        _snippet(page, text.count("\n", 0, found.start()) + 1, found["info"], found["text"])
        for found in FENCE.finditer(text)
    ]


def _snippet(page: Path, line: int, info: str, text: str) -> Snippet:
    language, _, rest = info.strip().partition(" ")
    _, marked, reason = rest.partition("not-run:")
    return Snippet(page, line, language, reason.strip() if marked else None, text)
