"""The version of a catalog: numbers with dots between them, such as a date, of which the larger one is newer."""

from __future__ import annotations

import re

#: The version of the families that this release contains.
BUILTIN_VERSION = "2026.11.29"
#: The form of a version.
VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,5}", re.ASCII)


def order(version: str) -> tuple[int, ...]:
    """A value by which versions of the right form are compared.

    >>> order("2026.12.1") > order("2026.11.30"), order("2026.12.0") == order("2026.12")
    (True, True)
    """
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
