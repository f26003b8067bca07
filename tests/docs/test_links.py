"""Each link between the documents leads to a file that exists, and to one of its headings."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?P<file>[^)\s#:]*)(?:#(?P<heading>[^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def broken_links(page: Path) -> list[str]:
    found = []
    for link in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = (page.parent / link["file"]) if link["file"] else page
        heading = link["heading"]
        if not target.exists() or (heading and target.suffix == ".md" and heading not in anchors(target)):
            found.append(link[0])
    return found


def test_each_link_has_a_target() -> None:
    assert {str(page.relative_to(ROOT)): links for page in PAGES if (links := broken_links(page))} == {}


def test_a_link_to_a_missing_heading_or_file_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# A `b` (c)\n[x](#a-b-c) [y](#gone) [z](b.md) [w](https://example.com/#any)\n")
    assert broken_links(page) == ["](#gone)", "](b.md)"]
