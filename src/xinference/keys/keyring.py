"""Creates, lists and revokes keys: updates the rows, and the table that is derived from them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, not_found
from xinference.keys.key import Key
from xinference.keys.new_key import LIMITS, NewKey, check
from xinference.keys.rows import KeyRows
from xinference.keys.secret import digest, new_secret
from xinference.keys.sessions import ID_PREFIX, Lifetime, Sessions
from xinference.keys.table import KeyTable, table_of
from xinference.store.database import Store

log = logging.getLogger(__name__)

#: Id and name of the key of users who may read the server's home.
OWNER = "owner"
#: Interval in which the times of last use are written, in seconds.
FLUSH_SECONDS = 60.0
#: Number of revoked and expired keys that are stored and listed.
DEAD_KEPT = 100


class Keyring:
    """All keys of one home. The gateway reads `table`, which is replaced before a change is answered."""

    def __init__(self, store: Store, *, always_required: bool = False, lifetime: Lifetime | None = None) -> None:
        """
        Args:
            always_required: requests need a key even if none exists.
            lifetime: that of sessions.
        """
        self._rows = KeyRows(store)
        self._always = always_required
        self._owner: Key | None = None
        self._last_used: dict[str, float] = {}
        self._subscribers: list[Callable[[], None]] = []
        stored = self._rows.all()
        self._keys: dict[str, Key] = {key.key_id: key for key in stored.keys}
        self._damaged = stored.damaged
        self.sessions = Sessions(store, lifetime or Lifetime(), self._publish)
        """The sessions of these keys."""
        self._remove_oldest()
        self._publish()

    @property
    def table(self) -> KeyTable:
        return self._table

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each new table."""
        self._subscribers.append(changed)

    def used(self, key: Key, now: float) -> None:
        """Record that a request came with `key`; `flush` writes the times."""
        self.note_use(key.key_id, now)
        if key.session:
            self.sessions.note_use(key.session, now)

    def note_use(self, key_id: str, at: float) -> None:
        """Record the time of a request with the key or the session of this id; the latest time is stored."""
        if key_id.startswith(ID_PREFIX):
            self.sessions.note_use(key_id, at)
        elif at > self._last_used.get(key_id, 0.0):
            self._last_used[key_id] = at

    def all(self) -> list[Key]:
        """Every key, also the revoked ones, oldest first."""
        return [replace(k, last_used=self._last_used.get(k.key_id, k.last_used)) for k in self._keys.values()]

    def create(self, new: NewKey) -> tuple[Key, str]:
        """Create a key. The second value is the key itself, which cannot be read again.

        Raises:
            Problem: 400 for invalid fields, 409 for a name that another key has.
        """
        check(new)
        key_id = "key-" + secrets.token_hex(4)
        name = new.name or key_id
        self._check_free(name)
        secret, now = new_secret(), time.time()
        key = Key(
            key_id,
            name,
            digest(secret.encode()),
            frozenset(new.scopes),
            None if new.models is None else frozenset(new.models),
            None if new.expires_in is None else now + new.expires_in,
            new.requests_per_minute,
            new.tokens_per_minute,
            now,
            requests_in_flight=new.requests_in_flight,
            max_output_tokens=new.max_output_tokens,
            max_request_seconds=new.max_request_seconds,
            priority=new.priority,
        )
        self._rows.add(key)
        self._keys[key_id] = key
        self._publish()
        log.info("the key %s (%s) is created: %s", name, key_id, _permissions(key))
        return key, secret

    def update(self, named: str, changes: Mapping[str, Any]) -> Key:
        """Change a key, by its id or name: the fields of `NewKey`; its secret and its counts stay.

        Raises:
            Problem: 400 for invalid fields or a revoked key, 404, 409 for a name that another key has.
        """
        key = self._find(named)
        if key.revoked is not None:
            raise bad_request(f"The key {key.name} is revoked.", hint="Create another one.")
        scopes, models = tuple(sorted(key.scopes)), None if key.models is None else tuple(sorted(key.models))
        limits = {name: getattr(key, name) for name in (*LIMITS, "priority")}
        check(replace(NewKey(key.name, scopes, models, **limits), **changes))
        if changes.get("name", key.name) != key.name:
            self._check_free(changes["name"])
        fields = dict(changes)
        if "expires_in" in fields:
            seconds = fields.pop("expires_in")
            fields["expires"] = None if seconds is None else time.time() + seconds
        for name in ("scopes", "models"):
            if fields.get(name) is not None:
                fields[name] = frozenset(fields[name])
        changed = replace(key, **fields)
        self._rows.update(changed)
        self._keys[key.key_id] = changed
        self._publish()
        log.info("the key %s (%s) is changed: %s", changed.name, key.key_id, _permissions(changed))
        return changed

    def revoke(self, named: str) -> Key:
        """Revoke a key, by its id or name: from now on it is treated like a wrong one.

        Its row stays, so that requests still need a key when the last one is revoked. Only the newest rows of revoked
        and expired keys are stored, see `DEAD_KEPT`.

        Raises:
            Problem: 404.
        """
        key = self._find(named)
        if key.revoked is None:
            key = replace(key, revoked=time.time())
            self._rows.revoke(key.key_id, key.revoked or 0.0)
            self._keys[key.key_id] = key
            self._remove_oldest()
            self._publish()
            log.info("the key %s (%s) is revoked", key.name, key.key_id)
        return key

    def remove_all(self) -> int:
        """Remove every key: the server is as open as before the first one. Returns the number of removed keys."""
        removed = len(self._keys) + self._damaged
        self._rows.remove_all()
        self._keys.clear()
        self._damaged = 0
        self._last_used.clear()
        self._publish()
        log.info("deleted all keys: %d", removed)
        return removed

    def open_for_owner(self) -> str:
        """A key for users who may read this server's home. It permits everything, is never written to the store, and
        is valid until this process ends."""
        secret = new_secret()
        self._owner = Key(OWNER, OWNER, digest(secret.encode()), frozenset(("use", "manage")), created=time.time())
        self._publish()
        return secret

    def flush(self) -> None:
        """Write the times of last use; if the store cannot be written, they are written later."""
        times, self._last_used = self._last_used, {}
        known = {key_id: at for key_id, at in times.items() if key_id in self._keys}
        for key_id, at in known.items():
            self._keys[key_id] = replace(self._keys[key_id], last_used=at)
        if known:
            self._rows.set_last_used(known)
        self.sessions.flush(self._every())

    async def flush_periodically(self) -> None:
        """Flush in intervals until cancelled, so that no request waits for the disk."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()

    def _find(self, named: str) -> Key:
        """By id, or by name; of several keys with one name the active one, else the newest."""
        if named in self._keys:
            return self._keys[named]
        matching = [key for key in self._keys.values() if key.name == named]
        for key in matching:
            if key.revoked is None:
                return key
        if matching:
            return matching[-1]
        raise not_found(f"There is no key {named!r}.", hint="See `xinference keys list`.", code=Code.KEY_NOT_FOUND)

    def _check_free(self, name: str) -> None:
        """Refuse a name that a valid key has.

        Raises:
            Problem: 409.
        """
        if any(name in (key.name, key.key_id) and key.revoked is None for key in self._keys.values()):
            raise Problem(
                Code.KEY_NAME_TAKEN,
                f"A key with the name {name} exists already.",
                hint="Choose another name, or revoke that key first.",
            )

    def _remove_oldest(self) -> None:
        """Remove the oldest keys that are revoked or expired, if there are too many. A failure is only logged."""
        dead = [key for key in self._keys.values() if key.revoked is not None or _has_expired(key)]
        old = sorted(dead, key=lambda key: key.revoked or key.expires or 0.0)[:-DEAD_KEPT]
        if not old:
            return
        try:
            self._rows.remove([key.key_id for key in old])
        except Problem as problem:
            log.error("old keys can't be removed: %s", problem)
            return
        for key in old:
            del self._keys[key.key_id]
            self._last_used.pop(key.key_id, None)

    def _every(self) -> dict[str, Key]:
        """All keys by id, also those that have ended, and the owner's key."""
        return self._keys | ({} if self._owner is None else {self._owner.key_id: self._owner})

    def find_valid(self, key_id: str) -> Key | None:
        """The key of this id, if requests may come with it."""
        key = self._every().get(key_id)
        return None if key is None or key.revoked is not None or _has_expired(key) else key

    def _publish(self) -> None:
        every = self._every()
        self._table = table_of(
            [*every.values(), *self.sessions.as_keys(every), *self.sessions.ended(every)],
            required=self._always or bool(self._keys or self._damaged),
        )
        for changed in self._subscribers:
            changed()


def _permissions(key: Key) -> str:
    models = "all models" if key.models is None else ", ".join(sorted(key.models))
    return f"{' and '.join(sorted(key.scopes))} of {models}"


def _has_expired(key: Key) -> bool:
    return key.expires is not None and key.expires <= time.time()
