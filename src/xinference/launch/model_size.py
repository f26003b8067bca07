"""The size of a model in a request, in billions of parameters."""

from __future__ import annotations


def whole_size(size: float | str | None) -> int | str | None:
    """The size in the form of the registry, which has no floats: 7.0 is 7, and 1.8 is a text."""
    if isinstance(size, float):
        return int(size) if size.is_integer() else str(size)
    return size
