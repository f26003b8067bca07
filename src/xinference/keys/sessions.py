"""The sessions of browsers: each has the permissions of the key with which it began, and ends with that key.

A session's secret is sent as a cookie, so that no script of the page can read it. Only its digest is stored.
A code begins one session: a program that has the key passes it to a browser in the address of the page.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from xinference.error_codes import Code
from xinference.keys.key import Key
from xinference.keys.secret import DIGEST_BYTES, ENTROPY_BYTES, digest
from xinference.store.database import Store
from xinference.store.row_types import stored_time

log = logging.getLogger(__name__)

#: The beginning of a session's id; the ids of keys begin differently.
ID_PREFIX = "session-"
#: Time in which a code may be used, in seconds.
CODE_SECONDS = 60.0
#: Maximum number of codes that wait for their use, and of sessions of one key; one more ends the oldest.
MAX_CODES = 100
MAX_SESSIONS = 100
#: Maximum number of ended sessions whose reason is remembered, until the server stops.
MAX_ENDED = 100


@dataclass(frozen=True)
class Lifetime:
    """How long a session may last, in seconds."""

    idle: float = 12 * 3600.0
    """Time without a request."""
    longest: float = 7 * 24 * 3600.0
    """Time since its begin."""


@dataclass(frozen=True)
class Session:
    """One session. Times are seconds since the epoch."""

    session_id: str
    digest: bytes
    key_id: str
    created: float
    last_used: float


class Sessions:
    """The sessions and codes of one home."""

    def __init__(
        self,
        store: Store,
        lifetime: Lifetime,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is called after each change of what `as_keys` returns."""
        self._store = store
        self._lifetime = lifetime
        self._changed = changed
        self._clock = clock
        self._codes: dict[bytes, tuple[str, float]] = {}
        self._sessions = {each.session_id: each for each in _stored(store, clock())}
        self._noted: dict[str, float] = {}
        self._ended: list[Key] = []

    def as_keys(self, keys: Mapping[str, Key]) -> list[Key]:
        """The sessions of `keys`, by id, each as a key with the session's digest and the end of its time."""
        now = self._clock()
        found = []
        for session in self._sessions.values():
            if self._end_of(session, keys, now) is None:
                key, end = keys[session.key_id], session.created + self._lifetime.longest
                expires = end if key.expires is None else min(end, key.expires)
                found.append(replace(key, digest=session.digest, expires=expires, session=session.session_id))
        return found

    def ended(self, keys: Mapping[str, Key]) -> list[Key]:
        """The sessions that have ended not long ago, each as a revoked key with the reason."""
        now = self._clock()
        ends = [(session, self._end_of(session, keys, now)) for session in self._sessions.values()]
        return [*self._ended, *(_ended(session, end, now) for session, end in ends if end is not None)]

    def begin(self, key: Key) -> str:
        """Begin a session of `key`; returns its secret, which cannot be read again."""
        secret, now = secrets.token_urlsafe(ENTROPY_BYTES), self._clock()
        session = Session(ID_PREFIX + secrets.token_hex(8), digest(secret.encode()), key.key_id, now, now)
        with self._store.write(durable=True) as db:
            db.execute(
                "INSERT INTO sessions(session_id, digest, key_id, created, last_used) VALUES (?, ?, ?, ?, ?)",
                (session.session_id, session.digest, session.key_id, now, now),
            )
        self._sessions[session.session_id] = session
        own = [each.session_id for each in self._sessions.values() if each.key_id == key.key_id]
        self._forget(dict.fromkeys(own[:-MAX_SESSIONS], Code.SESSION_REPLACED))
        self._changed()
        log.info("a session of the key %s (%s) has begun", key.name, key.key_id)
        return secret

    def end(self, session_id: str) -> None:
        """End a session: its cookie is worth nothing from now on."""
        if session_id in self._sessions:
            with self._store.write(durable=True) as db:
                db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            session = self._sessions.pop(session_id)
            self._remember(_ended(session, Code.SESSION_LOGGED_OUT, self._clock()))
            self._changed()
            log.info("a session of the key %s has ended", session.key_id)

    def new_code(self, key: Key) -> str:
        """A code that begins one session of `key` within `CODE_SECONDS`."""
        now = self._clock()
        valid = [(code, kept) for code, kept in self._codes.items() if kept[1] > now]
        self._codes = dict(valid[-(MAX_CODES - 1) :])
        code = secrets.token_urlsafe(ENTROPY_BYTES)
        self._codes[digest(code.encode())] = (key.key_id, now + CODE_SECONDS)
        return code

    def redeem(self, code: bytes) -> str | None:
        """The id of the key that a code is for; None: there is no such code any more. A code is valid once."""
        key_id, expires = self._codes.pop(digest(code), (None, 0.0))
        return key_id if expires > self._clock() else None

    def note_use(self, session_id: str, at: float) -> None:
        """Record the time of a request; `flush` stores it."""
        session = self._sessions.get(session_id)
        if session is not None and at > session.last_used:
            self._sessions[session_id] = replace(session, last_used=at)
            self._noted[session_id] = at

    def flush(self, keys: Mapping[str, Key]) -> None:
        """Store the times of use, and remove the sessions whose time or key has ended; `keys` are those of the home."""
        now = self._clock()
        noted, self._noted = self._noted, {}
        for session_id, at in noted.items():
            self._store.note("UPDATE sessions SET last_used = ? WHERE session_id = ?", at, session_id)
        ends = {each.session_id: self._end_of(each, keys, now) for each in self._sessions.values()}
        ended = {session_id: end for session_id, end in ends.items() if end is not None}
        if ended:
            self._forget(ended)
            self._changed()

    def _end_of(self, session: Session, keys: Mapping[str, Key], now: float) -> Code | None:
        """Why a session has ended; None: it is valid."""
        key = keys.get(session.key_id)
        if key is None or key.revoked is not None:
            return Code.SESSION_KEY_REVOKED
        if key.expires is not None and key.expires <= now:
            return Code.SESSION_KEY_EXPIRED
        is_over = session.last_used + self._lifetime.idle <= now or session.created + self._lifetime.longest <= now
        return Code.SESSION_EXPIRED if is_over else None

    def _forget(self, ended: Mapping[str, Code]) -> None:
        """Delete sessions that no request can use; their rows are deleted once the store can be written."""
        for session_id, end in ended.items():
            self._remember(_ended(self._sessions.pop(session_id), end, self._clock()))
            self._store.note("DELETE FROM sessions WHERE session_id = ?", session_id)

    def _remember(self, ended: Key) -> None:
        self._ended = [*self._ended, ended][-MAX_ENDED:]


def _stored(store: Store, now: float) -> list[Session]:
    """The stored sessions, oldest first. A damaged time must not keep a session beyond its lifetime."""
    rows = store.rows("sessions", "session_id, digest, key_id, created, last_used", "ORDER BY created, rowid")
    return [
        Session(session_id, secret, key_id, min(stored_time(created), now), min(stored_time(last_used), now))
        for session_id, secret, key_id, created, last_used in rows
        if len(secret) == DIGEST_BYTES
    ]


def _ended(session: Session, end: Code, now: float) -> Key:
    """A session without permissions, with the reason of its end."""
    return Key(
        session.key_id,
        "",
        session.digest,
        frozenset(),
        revoked=now,
        session=session.session_id,
        session_end=end.value,
    )
