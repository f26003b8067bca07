"""The registry of families: names the built-in files, and reads and checks each at its first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec

from xinference.catalog.check import MODEL_NAME, bad_entry, check_family
from xinference.catalog.models import ModelFamily
from xinference.error_codes import Code
from xinference.errors import Problem

__all__ = ["MODEL_NAME", "FamilyFolder", "builtin_families", "read_family"]
_FOLDER = Path(__file__).with_name("builtin")


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


class FamilyFolder(Mapping[str, ModelFamily]):
    """The families of a folder by name, in the order of the names; a file has the name of its family.

    The start of a server costs one listing of the folder: a file is read at the first use of its family, and then kept.
    Threads may read the same file twice, with equal results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))
        self._known = frozenset(self._names)
        self._families: dict[str, ModelFamily] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> ModelFamily:
        """The family of this name.

        Raises:
            Problem: 400 ``bad_registry_entry``.
        """
        family = self._families.get(name)
        if family is None:
            if name not in self._known:
                raise KeyError(name)
            family = self._families[name] = self._read(name)
        return family

    def _read(self, name: str) -> ModelFamily:
        file = f"{name}.json"
        try:
            text = (self._folder / file).read_bytes()
        except OSError as error:
            raise Problem(
                Code.BAD_REGISTRY_ENTRY, f"{file} can't be read: {error.strerror}.", hint="Install Xinference again."
            ) from error
        family = read_family(text, file)
        # The file name is the family's name, so two families cannot have the same name.
        if family.model_name != name:
            raise bad_entry(file, f"model_name {family.model_name!r} is not the name of the file")
        return family


@cache
def builtin_families() -> Mapping[str, ModelFamily]:
    """Every built-in family by name, in the order of the names."""
    return FamilyFolder(_FOLDER)
