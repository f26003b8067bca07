"""Rules about the source that import-linter and the type checker cannot express."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import xinference

SOURCE = Path(xinference.__file__).parent


def lines_of(*packages: str) -> Iterator[tuple[str, str]]:
    """Each line of these packages' modules, with the place where it stands."""
    for package in packages:
        for path in sorted((SOURCE / package).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield f"{path.relative_to(SOURCE)}:{number}", line


def test_the_gateway_knows_no_key_of_a_models_description() -> None:
    keys = ("description.get", "description[", "model_engine")
    assert [place for place, line in lines_of("gateway") if any(key in line for key in keys)] == []
