"""No module but an engine's own names it: a source test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from xinference.engines.registry import all_engines

SOURCE = Path(__file__).parents[2] / "src" / "xinference"
#: llama.cpp also defines GGUF: its names of tensor types and its rules for files are facts of that format.
FORMATS = ("formats", "hubs")


def texts_in(path: Path) -> Iterator[str]:
    """The texts of a module, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in statements:
            yield node.value


def may_name(path: Path, names: set[str]) -> bool:
    """Whether a name is in a module, in one text or in several that Python joins: only such modules are parsed."""
    source = re.sub(r"[\s\"']", "", path.read_text(encoding="utf-8")).lower()
    return any(name.lower() in source for name in names)


def test_only_an_engines_own_folder_names_it() -> None:
    names = {*all_engines(), *(path.parent.name for path in SOURCE.glob("engines/*/engine.py"))}
    assert len(names) >= 6
    named = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names), re.IGNORECASE)
    found = [
        (str(path.relative_to(SOURCE)), text)
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ("engines", *FORMATS) and may_name(path, names)
        for text in texts_in(path)
        if named.search(text)
    ]
    assert found == []
