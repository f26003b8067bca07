"""The stored API keys: their permissions and digests, never the keys themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from xinference.keys.key import Key
from xinference.store.database import Store

_COLUMNS = (
    "key_id, name, digest, scopes, models, expires, requests_per_minute, tokens_per_minute, created, last_used, revoked"
)


class KeyRows:
    """The table of keys in a store. A revoked key must not be valid again after a power cut."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Key]:
        """All keys, also the revoked ones; oldest first."""
        rows = self._store.read(f"SELECT {_COLUMNS} FROM keys ORDER BY created, rowid")  # noqa: S608 -- a constant
        return [_key(row) for row in rows]

    def add(self, key: Key) -> None:
        models = None if key.models is None else json.dumps(sorted(key.models))
        row = (
            *(key.key_id, key.name, key.digest, json.dumps(sorted(key.scopes)), models, key.expires),
            *(key.requests_per_minute, key.tokens_per_minute, key.created, key.last_used, key.revoked),
        )
        with self._store.write(durable=True) as db:
            db.execute(f"INSERT INTO keys({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def revoke(self, key_id: str, at: float) -> None:
        with self._store.write(durable=True) as db:
            db.execute("UPDATE keys SET revoked = ? WHERE key_id = ? AND revoked IS NULL", (at, key_id))

    def remove(self, key_ids: Iterable[str]) -> None:
        """Delete the rows, all or none of them."""
        with self._store.write(durable=True) as db:
            db.executemany("DELETE FROM keys WHERE key_id = ?", [(key_id,) for key_id in key_ids])

    def set_last_used(self, times: Mapping[str, float]) -> None:
        """Store the times of the keys' last use; deleted keys are left out."""
        with self._store.write() as db:
            db.executemany("UPDATE keys SET last_used = ? WHERE key_id = ?", [(at, k) for k, at in times.items()])


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, digest, scopes, models, *rest = row
    allowed = None if models is None else frozenset(json.loads(models))
    return Key(key_id, name, bytes(digest), frozenset(json.loads(scopes)), allowed, *rest)
