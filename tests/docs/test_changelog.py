"""The changelog has each change once: a merge of a rewritten list with its old text doubled sixty lines."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
#: Entries about different things differ in the beginning; two texts for one thing begin equally.
BEGINNING = 34


def test_no_two_entries_of_a_release_begin_equally() -> None:
    for release in re.split(r"^## ", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        entries = re.findall(r"^- (.*(?:\n  .*)*)", release, flags=re.MULTILINE)
        counts = Counter(" ".join(entry.split())[:BEGINNING] for entry in entries)
        assert [beginning for beginning, count in counts.items() if count > 1] == []
