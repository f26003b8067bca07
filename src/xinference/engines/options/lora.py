"""LoRA adapters of a launch: from the forms that users give them in to ``{name: path}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xinference.errors import Problem


def read_modules(option: str, given: Any) -> dict[str, str]:
    """``{name: absolute path}`` from an object of that form, from ``NAME=PATH``, and from a list of these.

    Raises:
        Problem: 400 ``bad_option``: another form, or a name that is given twice.
    """
    modules: dict[str, str] = {}
    for name, path in _pairs(option, given):
        # It becomes a word of the engine's command line, where a dash begins an option and a brace JSON.
        if name.startswith(("-", "{")) or any(ord(letter) < 32 for letter in name + path):
            raise Problem("bad_option", 400, f"--{option}: {name!r:.100} can't be the name of an adapter.")
        if name in modules:
            raise Problem("bad_option", 400, f"--{option} names the adapter {name!r} twice.")
        # An engine has another working directory than the server.
        modules[name] = str(Path(path).expanduser().absolute())
    return modules


def words(modules: Mapping[str, str]) -> list[str]:
    """``NAME=PATH``, as vLLM's and SGLang's command lines take them."""
    return [f"{name}={path}" for name, path in modules.items()]


def _pairs(option: str, given: Any) -> Iterator[tuple[str, str]]:
    for item in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(item, Mapping) and all(isinstance(path, str) and path for path in item.values()):
            yield from ((str(name), path) for name, path in item.items())
            continue
        name, _, path = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not path:
            raise Problem("bad_option", 400, f"--{option} is {item!r}, and takes NAME=PATH there.")
        yield name, path
