"""The keys of the API, as they are kept: what each may do, never the key itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xinference.store.database import Store


@dataclass(frozen=True)
class Key:
    """One key of the API. Times are seconds since the epoch."""

    key_id: str
    name: str
    digest: bytes
    """SHA-256 of the key; the key itself is kept nowhere."""
    scopes: frozenset[str]
    """``use``: ask models, and read what runs. ``manage``: everything but asking models."""
    models: frozenset[str] | None = None
    """Names of the models it may ask; None: all."""
    expires: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    created: float = 0.0
    last_used: float | None = None
    revoked: float | None = None

    def may_ask(self, model: str, parent: str | None = None) -> bool:
        """Whether it reaches `model`; `parent` is the deployment whose adapter that is."""
        return self.models is None or model in self.models or (parent is not None and parent in self.models)

    def to_dict(self) -> dict[str, Any]:
        """What its owner may see."""
        return {
            "id": self.key_id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "models": None if self.models is None else sorted(self.models),
            "expires": self.expires,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "created": self.created,
            "last_used": self.last_used,
            "revoked": self.revoked,
        }


_COLUMNS = (
    "key_id, name, digest, scopes, models, expires, requests_per_minute, tokens_per_minute, created, last_used, revoked"
)


class KeyRows:
    """The table of keys in a store. A key that was revoked must not come back with the power."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Key]:
        """Also the revoked ones; oldest first."""
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
        """Keep when keys were last used; keys that are gone are left out."""
        with self._store.write() as db:
            db.executemany("UPDATE keys SET last_used = ? WHERE key_id = ?", [(at, k) for k, at in times.items()])


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, digest, scopes, models, *rest = row
    allowed = None if models is None else frozenset(json.loads(models))
    return Key(key_id, name, bytes(digest), frozenset(json.loads(scopes)), allowed, *rest)
