"""A catalog as one JSON document: reads it whole, checks it, and writes it.

The content comes from another machine: a document with one fault is refused as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from xinference.catalog.catalog_version import VERSION
from xinference.catalog.check import check_family
from xinference.catalog.family_fields import fields_of
from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import MAX_NAME
from xinference.error_codes import Code
from xinference.errors import Problem

#: Maximum size of a document, in bytes; the families of a release have 1.6 MB.
MAX_BYTES = 8 << 20
MAX_FAMILIES = 5000
#: Maximum of any number: bytes and parameters of models are far below it.
MAX_NUMBER = 1 << 53
#: Maximum characters of the reason in a message: it can quote the document.
MAX_REASON = 400
_HINT = "Nothing is changed: the catalog stays as it was."


class CatalogDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The families of one version of the catalog."""

    format: Literal[1]
    """The version of this form."""
    version: str
    families: tuple[ModelFamily, ...]

    @property
    def by_name(self) -> dict[str, ModelFamily]:
        return {family.model_name: family for family in self.families}


def read_catalog(text: bytes, origin: str, builtin: Mapping[str, ModelFamily]) -> CatalogDocument:
    """Decode and check a document.

    Args:
        origin: where it comes from, for the message.
        builtin: the families of the release, of which no name may differ in case only.

    Raises:
        Problem: 400 ``bad_catalog``, which names the origin, the field and the fault.
    """
    if len(text) > MAX_BYTES:
        raise bad_catalog(origin, f"it has more than {MAX_BYTES} bytes")
    try:
        document = msgspec.json.decode(text, type=CatalogDocument)
        _check_numbers(msgspec.json.decode(text))
        _check(document, origin, builtin)
    except Problem as problem:
        if problem.code == Code.BAD_CATALOG:
            raise
        raise bad_catalog(origin, problem.cause) from None
    except (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise bad_catalog(origin, str(error)) from None
    return document


def write_catalog(version: str, families: Iterable[ModelFamily]) -> bytes:
    """The document of these families."""
    ordered = tuple(sorted(families, key=lambda family: family.model_name))
    return msgspec.json.encode({"format": 1, "version": version, "families": [fields_of(family) for family in ordered]})


def sha256_of(text: bytes) -> str:
    """The hash by which a document is pinned, in hexadecimal digits."""
    return hashlib.sha256(text).hexdigest()


def bad_catalog(origin: str, reason: str) -> Problem:
    """The problem of a document that is refused."""
    shown = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
    return Problem(Code.BAD_CATALOG, f"The catalog {origin} is refused: {shown.rstrip('.')}.", hint=_HINT)


def _check_numbers(value: Any) -> None:
    """Refuse numbers that no computation with memory can use.

    Raises:
        ValueError: one is too large.
    """
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            waiting += current.values()
        elif isinstance(current, list):
            waiting += current
        elif isinstance(current, int | float) and not abs(current) <= MAX_NUMBER:
            raise ValueError("it has a number that is too large")


def _check(document: CatalogDocument, origin: str, builtin: Mapping[str, ModelFamily]) -> None:
    if not VERSION.fullmatch(document.version):
        raise bad_catalog(origin, f"its version {document.version[:40]!r} is not numbers such as 2026.12.1")
    if not 1 <= len(document.families) <= MAX_FAMILIES:
        raise bad_catalog(origin, f"it has {len(document.families)} families, and may have 1 to {MAX_FAMILIES}")
    builtin_names = {name.lower(): name for name in builtin}
    seen: dict[str, str] = {}
    for family in document.families:
        _check_one(family, origin)
        name = family.model_name
        if (other := seen.setdefault(name.lower(), name)) is not name:
            raise bad_catalog(origin, f"it has two families with the name {other!r}, in any case of its letters")
        if builtin_names.get(name.lower(), name) != name:
            raise bad_catalog(origin, f"{name!r} is the name of a built-in family in other letters")


def _check_one(family: ModelFamily, origin: str) -> None:
    check_family(family, family.model_name[:MAX_NAME])
    if len(family.model_name) > MAX_NAME:
        raise bad_catalog(origin, f"the name {family.model_name[:MAX_NAME]!r}… has more than {MAX_NAME} characters")
    if any(source.hub == "local" for spec in family.model_specs for source in spec.sources):
        raise bad_catalog(origin, f"{family.model_name} has a path of this machine as the source of its weights")
