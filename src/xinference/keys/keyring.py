"""Creates, lists and revokes keys: updates the rows, and the table that is derived from them."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, not_found
from xinference.keys.key import Key
from xinference.keys.rows import KeyRows
from xinference.keys.secret import digest, new_secret
from xinference.keys.table import KeyTable, table_of
from xinference.store.database import Store

log = logging.getLogger(__name__)

SCOPES = ("use", "manage", "monitor")
#: The limits of a key.
LIMITS = ("requests_per_minute", "tokens_per_minute", "requests_in_flight", "max_output_tokens", "max_request_seconds")
#: Interval in which the times of last use are written, in seconds.
FLUSH_SECONDS = 60.0
MAX_MODEL_NAME = 100
#: Number of revoked and expired keys that are stored and listed.
DEAD_KEPT = 100
_NAME = re.compile(r"[\w.@-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class NewKey:
    """The fields of a key to be created."""

    name: str | None = None
    """The owner's name for it; None: its id."""
    scopes: tuple[str, ...] = ("use",)
    models: tuple[str, ...] | None = None
    expires_in: float | None = None
    """Seconds from now; None: never."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_in_flight: int | None = None
    max_output_tokens: int | None = None
    max_request_seconds: float | None = None


class Keyring:
    """All keys of one home. The gateway reads `table`, which is replaced before a change is answered."""

    def __init__(self, store: Store, *, always_required: bool = False) -> None:
        """`always_required`: requests need a key even if none exists."""
        self._rows = KeyRows(store)
        self._always = always_required
        self._owner: Key | None = None
        self._last_used: dict[str, float] = {}
        self._subscribers: list[Callable[[], None]] = []
        stored = self._rows.all()
        self._keys: dict[str, Key] = {key.key_id: key for key in stored.keys}
        self._damaged = stored.damaged
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

    def note_use(self, key_id: str, at: float) -> None:
        """Record the time of a request with the key of this id; the latest time is stored."""
        if at > self._last_used.get(key_id, 0.0):
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
        limits = {name: getattr(key, name) for name in LIMITS}
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
        every = [*self._keys, *self._damaged]
        self._rows.remove(every)
        self._keys.clear()
        self._damaged.clear()
        self._last_used.clear()
        self._publish()
        log.info("all keys are deleted: %d", len(every))
        return len(every)

    def open_for_owner(self) -> str:
        """A key for users who may read this server's home. It permits everything, is never written to the store, and
        is valid until this process ends."""
        secret = new_secret()
        self._owner = Key("owner", "owner", digest(secret.encode()), frozenset(("use", "manage")), created=time.time())
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

    def _publish(self) -> None:
        owner: Iterable[Key] = () if self._owner is None else (self._owner,)
        self._table = table_of(
            [*self._keys.values(), *owner], required=self._always or bool(self._keys or self._damaged)
        )
        for changed in self._subscribers:
            changed()


def _permissions(key: Key) -> str:
    models = "all models" if key.models is None else ", ".join(sorted(key.models))
    return f"{' and '.join(sorted(key.scopes))} of {models}"


def _has_expired(key: Key) -> bool:
    return key.expires is not None and key.expires <= time.time()


def check(new: NewKey) -> None:
    """Refuse invalid fields of a key.

    Raises:
        Problem: 400, which names the field and its value.
    """
    if new.name is not None and not _NAME.fullmatch(new.name):
        hint = "Use 1 to 100 letters, digits and any of . _ @ -"
        raise bad_request(f"The name {new.name[:100]!r} is not valid for a key.", hint=hint)
    unknown = [scope for scope in new.scopes if scope not in SCOPES]
    if unknown or not new.scopes:
        shown = f"There is no scope {unknown[0][:100]!r}." if unknown else "A key needs a scope."
        raise bad_request(shown, hint=f"The scopes are {', '.join(SCOPES[:-1])} and {SCOPES[-1]}.")
    if new.models is not None and not all(
        0 < len(m) <= MAX_MODEL_NAME and m.isprintable() for m in new.models or ("",)
    ):
        raise bad_request("A key for certain models needs their names.", hint="Omit `models` to allow all.")
    if new.expires_in is not None and not (math.isfinite(new.expires_in) and new.expires_in > 0):
        raise bad_request(f"A key can't expire in {new.expires_in} seconds.", hint="Use a positive number.")
    for field in LIMITS:
        limit: float | None = getattr(new, field)
        if limit is not None and not (0 < limit < 2**53 and (limit >= 1 or field == "max_request_seconds")):
            raise bad_request(f"{field} is {limit}.", hint="Use a positive number, or leave it out for no limit.")
