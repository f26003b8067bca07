"""Sessions of browsers: they end with their key, after their time, and by logging out; a code begins one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from xinference.keys import sessions as module
from xinference.keys.key import Key
from xinference.keys.keyring import Keyring
from xinference.keys.new_key import NewKey
from xinference.keys.secret import digest
from xinference.keys.session_cookie import cookie_name, cookie_value, set_cookie
from xinference.keys.sessions import CODE_SECONDS, Lifetime, Sessions
from xinference.keys.table import table_of
from xinference.store.database import Store

KEY = Key("k1", "k", b"d" * 32, frozenset({"use"}))


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(store: Store, clock: Clock) -> Sessions:
    return Sessions(store, Lifetime(idle=100.0, longest=1000.0), lambda: None, clock=clock)


def test_a_session_has_what_its_key_has_and_is_found_by_its_cookie_only(keys: Keyring) -> None:
    key, secret = keys.create(NewKey("a", ("use",), ("m",), requests_per_minute=5))
    session_secret = keys.sessions.begin(key).encode()
    session = keys.table.find_session(session_secret)
    assert session is not None and session.session
    assert (session.key_id, session.scopes, session.models) == (key.key_id, key.scopes, key.models)
    assert session.requests_per_minute == 5
    assert keys.table.find(session_secret) is None
    assert keys.table.find_session(secret.encode()) is None and keys.table.find_session(b"") is None


def test_the_store_has_no_secret_of_a_session(keys: Keyring, tmp_path: Path) -> None:
    key, _ = keys.create(NewKey())
    secret = keys.sessions.begin(key).encode()
    files = [file for file in tmp_path.iterdir() if file.name.startswith("x.db")]
    assert files and not any(secret in file.read_bytes() for file in files)


def test_a_session_survives_a_restart_and_ends_with_its_key(keys: Keyring, store: Store) -> None:
    key, _ = keys.create(NewKey())
    keys.create(NewKey())
    secret = keys.sessions.begin(key).encode()
    assert Keyring(store).table.find_session(secret) is not None
    keys.revoke(key.key_id)
    assert keys.table.find_session(secret) is None
    assert Keyring(store).table.find_session(secret) is None
    keys.flush()
    assert store.read("SELECT count(*) FROM sessions") == [(0,)]


def test_a_session_of_the_owner_survives_a_restart(keys: Keyring, store: Store) -> None:
    keys.open_for_owner()
    owner = keys.find_valid("owner")
    assert owner is not None
    secret = keys.sessions.begin(owner).encode()
    again = Keyring(store)
    assert again.table.find_session(secret) is None  # not before there is an owner's key
    again.open_for_owner()
    assert again.table.find_session(secret) is not None


def test_a_changed_key_changes_its_sessions(keys: Keyring) -> None:
    key, _ = keys.create(NewKey(scopes=("use", "manage")))
    secret = keys.sessions.begin(key).encode()
    keys.update(key.key_id, {"scopes": ("use",)})
    session = keys.table.find_session(secret)
    assert session is not None and session.scopes == {"use"}


def test_a_session_ends_by_logging_out_and_another_goes_on(keys: Keyring) -> None:
    key, _ = keys.create(NewKey())
    first, second = (keys.sessions.begin(key).encode() for _ in range(2))
    session = keys.table.find_session(first)
    assert session is not None
    keys.sessions.end(session.session)
    assert keys.table.find_session(first) is None and keys.table.find_session(second) is not None


def test_a_session_without_requests_ends(sessions: Sessions, clock: Clock, store: Store) -> None:
    sessions.begin(KEY)
    clock.now += 99
    (session,) = sessions.as_keys({"k1": KEY})
    sessions.note_use(session.session, clock.now)
    clock.now += 99
    sessions.flush({"k1": KEY})
    assert sessions.as_keys({"k1": KEY})
    assert store.read("SELECT last_used FROM sessions") == [(1099.0,)]
    clock.now += 2
    assert not sessions.as_keys({"k1": KEY})
    sessions.flush({"k1": KEY})
    assert store.read("SELECT count(*) FROM sessions") == [(0,)]


def test_a_session_ends_after_its_longest_time_whatever_it_does(sessions: Sessions, clock: Clock) -> None:
    sessions.begin(KEY)
    (session,) = sessions.as_keys({"k1": KEY})
    assert session.expires == 2000.0
    for _ in range(19):
        clock.now += 50
        sessions.note_use(session.session, clock.now)
    assert sessions.as_keys({"k1": KEY})
    clock.now += 50
    assert not sessions.as_keys({"k1": KEY})


def test_a_session_ends_when_its_key_expires(sessions: Sessions) -> None:
    key = Key("k1", "k", b"d" * 32, frozenset({"use"}), expires=1500.0)
    sessions.begin(key)
    assert [each.expires for each in sessions.as_keys({"k1": key})] == [1500.0]


def test_a_key_has_a_maximum_of_sessions(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    secrets = [sessions.begin(KEY).encode() for _ in range(3)]
    digests = {each.digest for each in sessions.as_keys({"k1": KEY})}
    assert digests == {digest(secret) for secret in secrets[1:]}


def ends(sessions: Sessions, key: Key | None = KEY) -> list[str]:
    return [each.session_end for each in sessions.ended({} if key is None else {key.key_id: key})]


def test_an_ended_session_has_its_reason_before_and_after_it_is_deleted(sessions: Sessions, clock: Clock) -> None:
    sessions.begin(KEY)
    clock.now += 100
    assert ends(sessions) == ["session_expired"]
    sessions.flush({"k1": KEY})
    assert ends(sessions) == ["session_expired"]


@pytest.mark.parametrize(
    ("key", "end"),
    [
        (None, "session_key_revoked"),
        (replace(KEY, revoked=1000.0), "session_key_revoked"),
        (replace(KEY, expires=1000.0), "session_key_expired"),
    ],
)
def test_the_reason_names_what_has_happened_to_the_key(sessions: Sessions, key: Key | None, end: str) -> None:
    sessions.begin(KEY)
    assert ends(sessions) == []
    assert ends(sessions, key) == [end]


def test_a_log_out_and_a_newer_session_are_reasons(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 1)
    for _ in range(2):
        sessions.begin(KEY)
    (newest,) = sessions.as_keys({"k1": KEY})
    sessions.end(newest.session)
    assert ends(sessions) == ["session_replaced", "session_logged_out"]


def test_the_reasons_do_not_pile_up(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 3)
    for _ in range(5):
        sessions.begin(KEY)
        (session,) = sessions.as_keys({"k1": KEY})
        sessions.end(session.session)
    assert len(ends(sessions)) == 3


def test_an_ended_session_is_in_the_table_for_its_reason_only(keys: Keyring) -> None:
    key, _ = keys.create(NewKey())
    secret = keys.sessions.begin(key).encode()
    assert keys.table.end_of_session(secret) == "session_ended"  # it has not: its cookie finds it
    keys.revoke(key.key_id)
    assert keys.table.end_of_session(secret) == "session_key_revoked"
    assert keys.table.find_session(secret) is None and keys.table.find(secret) is None
    again = table_of(keys.table.entries, required=True)
    assert again.end_of_session(secret) == "session_key_revoked"


def test_a_code_is_valid_once_within_its_time(sessions: Sessions, clock: Clock) -> None:
    code, late = (sessions.new_code(KEY).encode() for _ in range(2))
    assert sessions.redeem(b"wrong") is None
    assert sessions.redeem(code) == "k1"
    assert sessions.redeem(code) is None
    clock.now += CODE_SECONDS
    assert sessions.redeem(late) is None


def test_codes_that_nobody_uses_do_not_pile_up(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CODES", 3)
    codes = [sessions.new_code(KEY).encode() for _ in range(5)]
    assert [sessions.redeem(code) for code in codes] == [None, None, "k1", "k1", "k1"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"xinference_9997=abc", b"abc"),
        (b"a=b; xinference_9997=abc ;c=d", b"abc"),
        (b"xinference_99970=x; xinference_999=y", b""),
        (b"xinference_9997", b""),
        (b"xinference_9997=a=b", b"a=b"),
        (b"", b""),
        (b";;;=;", b""),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(header: bytes, value: bytes) -> None:
    assert cookie_value([header], cookie_name(9997).encode()) == value


def test_a_cookie_is_for_this_server_and_its_page_only() -> None:
    cookie = set_cookie(9997, "s", max_age=60.0, is_tls=True)
    assert cookie == "xinference_9997=s; Max-Age=60; Path=/; HttpOnly; SameSite=Strict; Secure"
    assert "Secure" not in set_cookie(9997, "s", max_age=60.0, is_tls=False)
