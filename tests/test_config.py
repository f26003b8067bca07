"""What the server may be told from outside, and the page that says so."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from xinference import config
from xinference.config import Settings
from xinference.errors import Problem

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def meanings() -> dict[str, str]:
    """The words below each field of `Settings`."""
    (made,) = [n for n in ast.parse(inspect.getsource(config)).body if isinstance(n, ast.ClassDef)]
    fields = [n for n in made.body if isinstance(n, ast.AnnAssign)]
    below = [made.body[made.body.index(f) + 1] for f in fields]
    return {ast.unparse(f.target): ast.literal_eval(ast.unparse(b)) for f, b in zip(fields, below, strict=True)}


def test_the_page_has_every_setting_with_its_default_and_meaning() -> None:
    default = Settings()
    rows = []
    for name, meaning in meanings().items():
        value = "~/.xinference" if name == "home" else getattr(default, name)
        shown = "–" if value == "" else value
        rows.append(f"| `XINFERENCE_{name.upper()}` | {shown} | {' '.join(meaning.split())} |")
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == rows


def test_a_setting_is_read_from_its_variable() -> None:
    settings = Settings.from_env({"XINFERENCE_DRAIN_SECONDS": "2.5", "XINFERENCE_MODEL_MEMORY": "24GiB"})
    assert (settings.drain_seconds, settings.model_memory) == (2.5, 24 * 1024**3)


def test_a_wrong_value_is_refused_with_its_variable() -> None:
    with pytest.raises(Problem, match="XINFERENCE_DRAIN_SECONDS is 'soon', which is not a float"):
        Settings.from_env({"XINFERENCE_DRAIN_SECONDS": "soon"})
