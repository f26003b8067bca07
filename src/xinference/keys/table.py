"""The table for the look-up of a request's key: immutable, replaced as a whole when keys change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from xinference.keys.key import Key
from xinference.keys.secret import MAX_LENGTH, digest


@dataclass(frozen=True)
class KeyTable:
    """The valid keys at one moment."""

    by_digest: Mapping[bytes, Key] = field(default_factory=lambda: MappingProxyType({}))
    """All keys that are not revoked, by digest; expired ones are included, because their error differs."""
    required: bool = False
    """Whether requests need a key."""
    sessions: Mapping[bytes, Key] = field(default_factory=lambda: MappingProxyType({}))
    """The sessions of browsers, by digest; each has the permissions of its key."""

    def find(self, secret: bytes) -> Key | None:
        """The key for `secret`: one hash and one look-up, whether it is right or wrong."""
        return self.by_digest.get(digest(secret)) if len(secret) <= MAX_LENGTH else None

    def find_session(self, secret: bytes) -> Key | None:
        """The session that a browser's cookie names."""
        return self.sessions.get(digest(secret)) if len(secret) <= MAX_LENGTH else None


def table_of(keys: Iterable[Key], *, required: bool) -> KeyTable:
    """The table of those of `keys` that are not revoked; sessions among them are only found by their cookie."""
    valid = [key for key in keys if key.revoked is None]
    return KeyTable(
        MappingProxyType({key.digest: key for key in valid if not key.session}),
        required,
        MappingProxyType({key.digest: key for key in valid if key.session}),
    )


class Keys(Protocol):
    """The interface of the keys for the data path."""

    @property
    def table(self) -> KeyTable:
        """The current table; read once a request, without a lock."""
        ...

    def used(self, key: Key, now: float) -> None:
        """Record that a request came with `key`; in memory only."""
        ...


class NoKeys:
    """No key is required."""

    table = KeyTable()

    def used(self, key: Key, now: float) -> None:
        """No key exists, so nothing is recorded."""
