"""LoRA adapters of a launch: parses the user's forms to ``{name: path}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, shown


def read_modules(option: str, value: Any) -> dict[str, str]:
    """``{name: absolute path}`` from an object of that form, from ``NAME=PATH``, and from a list of these.

    Raises:
        Problem: 400 ``bad_option``: another form, or a duplicate name.
    """
    modules: dict[str, str] = {}
    for name, path in _pairs(option, value):
        # The name becomes a word of the engine's command line, where a dash begins an option and a brace begins JSON.
        if name.startswith(("-", "{")) or any(ord(letter) < 32 for letter in name + path):
            raise Problem(Code.BAD_OPTION, f"--{option}: {name!r:.100} is not a valid name of an adapter.")
        if name in modules:
            raise Problem(Code.BAD_OPTION, f"--{option} names the adapter {name!r} twice.")
        # An engine has another working directory than the server.
        modules[name] = str(Path(path).expanduser().absolute())
    return modules


def words(modules: Mapping[str, str]) -> list[str]:
    """``NAME=PATH`` strings, as on vLLM's and SGLang's command lines."""
    return [f"{name}={path}" for name, path in modules.items()]


def _pairs(option: str, value: Any) -> Iterator[tuple[str, str]]:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, Mapping) and all(isinstance(path, str) and path for path in item.values()):
            yield from ((str(name), path) for name, path in item.items())
            continue
        name, _, path = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not path:
            raise Problem(Code.BAD_OPTION, f"--{option} is {shown(item)}, but must be NAME=PATH.")
        yield name, path
