"""No module but an engine's own compares its name: a source test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from xinference.engines.registry import all_engines

SOURCE = Path(__file__).parents[2] / "src" / "xinference"
PACKAGES = (
    "api",
    "control",
    "deployments",
    "environments",
    "gateway",
    "keys",
    "launch",
    "local_commands",
    "planning",
    "process",
    "protocol",
    "routing",
    "weights",
)
#: A path that is a contract with clients, and a line of `xinference doctor` on the package of the base install.
DATA = {("api/routes/catalog.py", "vLLM"), ("local_commands/doctor.py", "llama.cpp")}


def names_in(path: Path) -> Iterator[str]:
    """The texts of a module that are an engine's name, in any case."""
    known = {name.lower() for name in all_engines()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in known:
            yield node.value


def test_only_an_engines_own_folder_and_data_name_it() -> None:
    modules = [path for package in PACKAGES for path in (SOURCE / package).rglob("*.py")]
    found = {(str(path.relative_to(SOURCE)), name) for path in modules for name in names_in(path)}
    assert found == DATA
