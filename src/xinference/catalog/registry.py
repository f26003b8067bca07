"""The registry of families: reads and checks the built-in files once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

import msgspec

from xinference.catalog.check import MODEL_NAME, bad_entry, check_family
from xinference.catalog.models import ModelFamily

__all__ = ["MODEL_NAME", "builtin_families", "read_family"]


def read_family(text: bytes, origin: str) -> ModelFamily:
    """Decode and check one family.

    Raises:
        Problem: 400 ``bad_registry_entry``, which names the file, the field and the fault.
    """
    try:
        family = msgspec.json.decode(text, type=ModelFamily)
    except msgspec.DecodeError as error:
        raise bad_entry(origin, str(error)) from None
    check_family(family, origin)
    return family


@cache
def builtin_families() -> Mapping[str, ModelFamily]:
    """Every built-in family by name, in the order of the names of their files."""
    folder = resources.files("xinference.catalog") / "builtin"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    families: dict[str, ModelFamily] = {}
    for file in files:
        family = read_family(file.read_bytes(), file.name)
        # The file name is the family's name, so two families cannot have the same name in any case.
        if file.name != f"{family.model_name.lower()}.json":
            raise bad_entry(file.name, f"model_name {family.model_name!r} is not the name of the file")
        families[family.model_name] = family
    return MappingProxyType(families)
