"""The stored API keys: their permissions and digests, never the keys themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xinference.keys.key import PRIORITIES, Key
from xinference.keys.secret import DIGEST_BYTES
from xinference.store.database import Store
from xinference.store.row_types import row_fault, shown

#: The limits and times of a row are below these numbers; the latest time is the end of the year 9998.
MAX_LIMIT = 2.0**53
MAX_TIME = 253_370_764_800.0
_TIMES = frozenset({"created", "last_used", "revoked"})
_COLUMNS = (
    "key_id, name, digest, scopes, models, expires, requests_per_minute, tokens_per_minute, created, last_used, "
    "revoked, requests_in_flight, max_output_tokens, max_request_seconds, priority"
)


@dataclass(frozen=True)
class StoredKeys:
    """The content of the table."""

    keys: list[Key]
    damaged: int
    """Number of the rows that cannot be read. Their keys are refused."""


class KeyRows:
    """The table of keys in a store. A revoked key must not be valid again after a power cut."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> StoredKeys:
        """All keys, also the revoked ones; oldest first. A damaged row hides no other one.

        Raises:
            Problem: the table cannot be read.
        """
        keys = []
        rows = self._store.read(f"SELECT rowid, {_COLUMNS} FROM keys ORDER BY created, rowid")  # noqa: S608 -- the columns are constants
        for number, *row in rows:
            try:
                keys.append(_key(row))
            except (ValueError, RecursionError) as error:
                self._store.report_damaged("keys", number, str(error))
        return StoredKeys(keys, len(rows) - len(keys))

    def add(self, key: Key) -> None:
        models = None if key.models is None else json.dumps(sorted(key.models))
        row = (
            *(key.key_id, key.name, key.digest, json.dumps(sorted(key.scopes)), models, key.expires),
            *(key.requests_per_minute, key.tokens_per_minute, key.created, key.last_used, key.revoked),
            *(key.requests_in_flight, key.max_output_tokens, key.max_request_seconds, key.priority),
        )
        with self._store.write(durable=True) as db:
            db.execute(f"INSERT INTO keys({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 -- the columns are constants

    def update(self, key: Key) -> None:
        """Write the changed permissions of a key."""
        models = None if key.models is None else json.dumps(sorted(key.models))
        limits = (
            *(key.requests_per_minute, key.tokens_per_minute, key.requests_in_flight),
            *(key.max_output_tokens, key.max_request_seconds, key.priority),
        )
        with self._store.write(durable=True) as db:
            db.execute(
                "UPDATE keys SET name = ?, scopes = ?, models = ?, expires = ?, requests_per_minute = ?, "
                "tokens_per_minute = ?, requests_in_flight = ?, max_output_tokens = ?, max_request_seconds = ?, "
                "priority = ? WHERE key_id = ?",
                (key.name, json.dumps(sorted(key.scopes)), models, key.expires, *limits, key.key_id),
            )

    def revoke(self, key_id: str, at: float) -> None:
        with self._store.write(durable=True) as db:
            db.execute("UPDATE keys SET revoked = ? WHERE key_id = ? AND revoked IS NULL", (at, key_id))

    def remove_all(self) -> None:
        """Delete every row, also the damaged ones."""
        with self._store.write(durable=True) as db:
            db.execute("DELETE FROM keys")

    def remove(self, key_ids: Iterable[str]) -> None:
        """Delete the rows, all or none of them."""
        with self._store.write(durable=True) as db:
            db.executemany("DELETE FROM keys WHERE key_id = ?", [(key_id,) for key_id in key_ids])

    def set_last_used(self, times: Mapping[str, float]) -> None:
        """Store the times of the keys' last use, as a note; deleted keys are left out."""
        text = json.dumps(dict(times))
        self._store.note(
            "UPDATE keys SET last_used = (SELECT value FROM json_each(?) WHERE json_each.key = key_id) "
            "WHERE key_id IN (SELECT json_each.key FROM json_each(?))",
            *(text, text),
        )


def _key(row: Sequence[Any]) -> Key:
    """The key of a row.

    Raises:
        ValueError, RecursionError: the row is damaged.
    """
    if (fault := row_fault("keys", _COLUMNS.split(", "), row)) is not None:
        raise ValueError(fault)
    key_id, name, digest, scopes, models, expires, *rest = row
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"its digest has {len(digest)} bytes")
    if expires is not None:
        if not math.isfinite(expires):
            raise ValueError(f"expires is {expires}")
        expires = min(max(expires, 0.0), MAX_TIME)
    for column, number in zip(_COLUMNS.split(", ")[6:-1], rest[:-1], strict=True):
        if number is not None and not 0 <= number < (MAX_TIME if column in _TIMES else MAX_LIMIT):
            raise ValueError(f"{column} is {number}")
    if not (key_id.isprintable() and name.isprintable()):
        raise ValueError("its id or name has control characters")
    if rest[-1] not in PRIORITIES:
        raise ValueError(f"its priority is {shown(rest[-1])}")
    allowed = None if models is None else _names(models)
    return Key(key_id, name, digest, _names(scopes), allowed, expires, *rest)


def _names(text: str) -> frozenset[str]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{shown(text)} is not a list of names")
    return frozenset(names)
