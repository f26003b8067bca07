"""The map of docs/architecture.md: one line for each file, the first sentence of its docstring.

``python -m tests.support.architecture_map`` writes it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "src" / "xinference"
BEGIN, END = "<!-- map: begin -->\n", "<!-- map: end -->"


def page_with_map() -> str:
    """The page with the map that follows from the files."""
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:begin] + "\n".join(_lines(PACKAGE)) + "\n" + page[end:]


@functools.cache
def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, as one line of Markdown."""
    paragraph = " ".join(_docstring(path).split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".:").replace("``", "`")


def _docstring(path: Path) -> str:
    """The docstring of a module, whose other lines are not parsed."""
    with path.open(encoding="utf-8") as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.STRING:
                return inspect.cleandoc(str(ast.literal_eval(token.string)))
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                break
    return ""


def _lines(folder: Path) -> Iterator[str]:
    yield "| file | what it is |"
    yield "|---|---|"
    for path in _modules(folder):
        yield f"| `{path.relative_to(PACKAGE)}` | {first_sentence(path)} |"


def _modules(folder: Path) -> list[Path]:
    """The modules that have a docstring: files of a folder before its subfolders."""
    found = [path for path in folder.rglob("*.py") if path.name != "__init__.py" or first_sentence(path)]
    return sorted(found, key=lambda path: (path.parent.relative_to(folder).parts, path.name))


if __name__ == "__main__":
    PAGE.write_text(page_with_map())
