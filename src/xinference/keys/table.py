"""The table for the look-up of a request's key: immutable, replaced as a whole when keys change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from xinference.error_codes import Code
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
    ended_sessions: Mapping[bytes, Key] = field(default_factory=lambda: MappingProxyType({}))
    """The sessions that have ended not long ago, by digest, for the reason of their end."""

    def find(self, secret: bytes) -> Key | None:
        """The key for `secret`: one hash and one look-up, whether it is right or wrong."""
        return self.by_digest.get(digest(secret)) if len(secret) <= MAX_LENGTH else None

    def find_session(self, secret: bytes) -> Key | None:
        """The session that a browser's cookie names."""
        return self.sessions.get(digest(secret)) if len(secret) <= MAX_LENGTH else None

    def end_of_session(self, secret: bytes) -> Code:
        """The code of the error for a browser's cookie that names no valid session."""
        ended = self.ended_sessions.get(digest(secret)) if len(secret) <= MAX_LENGTH else None
        return Code.SESSION_ENDED if ended is None else Code[ended.session_end.upper()]

    @property
    def entries(self) -> list[Key]:
        """All keys and sessions, as `table_of` takes them."""
        return [*self.by_digest.values(), *self.sessions.values(), *self.ended_sessions.values()]


def table_of(keys: Iterable[Key], *, required: bool) -> KeyTable:
    """The table of those of `keys` that are not revoked; sessions among them are only found by their cookie."""
    listed = list(keys)
    valid = [key for key in listed if key.revoked is None]
    return KeyTable(
        MappingProxyType({key.digest: key for key in valid if not key.session}),
        required,
        MappingProxyType({key.digest: key for key in valid if key.session}),
        MappingProxyType({key.digest: key for key in listed if key.session and key.session_end}),
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
