"""The table that requests are looked up in: immutable, replaced as a whole when keys change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from xinference.keys.key import Key
from xinference.keys.secret import MAX_LENGTH, digest


@dataclass(frozen=True)
class KeyTable:
    """The keys that count at one moment."""

    by_digest: Mapping[bytes, Key] = field(default_factory=lambda: MappingProxyType({}))
    """All that are not revoked, by their digest; also the expired ones, who are told so."""
    required: bool = False
    """Whether a request needs a key at all."""

    def find(self, secret: bytes) -> Key | None:
        """The key whose holder sent `secret`: one hash and one look-up, whether it is right or wrong."""
        return self.by_digest.get(digest(secret)) if len(secret) <= MAX_LENGTH else None


def table_of(keys: Iterable[Key], *, required: bool) -> KeyTable:
    """The table of those of `keys` that are not revoked."""
    return KeyTable(MappingProxyType({key.digest: key for key in keys if key.revoked is None}), required)


class Keys(Protocol):
    """The keys, seen from the data path."""

    @property
    def table(self) -> KeyTable:
        """The current table; read once a request, without a lock."""
        ...

    def used(self, key: Key, now: float) -> None:
        """Note that a request came with `key`; in memory only."""
        ...


class NoKeys:
    """Nobody needs a key."""

    table = KeyTable()

    def used(self, key: Key, now: float) -> None:
        """There is none to be used."""
