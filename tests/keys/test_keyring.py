from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from xinference.errors import Problem
from xinference.keys.keyring import Keyring
from xinference.keys.new_key import NewKey
from xinference.keys.secret import PREFIX, new_secret
from xinference.store.database import Store


def test_a_key_has_192_random_bits_and_fits_into_a_header() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("sk-xinf-") and len(secret) == len(PREFIX) + 32 for secret in secrets)
    assert all(secret.isascii() and secret.isprintable() and " " not in secret for secret in secrets)


def test_no_key_is_needed_until_one_is_made_and_then_it_is_found_at_once(keys: Keyring) -> None:
    assert not keys.table.required
    key, secret = keys.create(NewKey())
    assert keys.table.required
    assert keys.table.find(secret.encode()) == key
    assert keys.table.find(secret.encode() + b"x") is None


def test_neither_the_store_nor_a_listing_has_the_key_itself(keys: Keyring, tmp_path: Path) -> None:
    _, secret = keys.create(NewKey(name="a"))
    files = [file for file in tmp_path.iterdir() if file.name.startswith("x.db")]
    assert files and not any(secret.encode() in file.read_bytes() for file in files)
    assert secret not in str(keys.all()[0].to_dict())


def test_keys_are_the_same_after_a_restart(keys: Keyring, store: Store) -> None:
    wanted = NewKey("a", ("use", "manage"), ("m", "n"), 60.0, 5, 1000, 7)
    key, secret = keys.create(wanted)
    again = Keyring(store)
    assert again.table.find(secret.encode()) == key
    assert sorted(key.scopes) == ["manage", "use"] and sorted(key.models or ()) == ["m", "n"]
    assert (key.requests_per_minute, key.tokens_per_minute, key.requests_in_flight) == (5, 1000, 7)
    assert key.expires is not None and key.expires - key.created == pytest.approx(60)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_revoked_key_is_unknown_at_once_and_the_server_stays_closed(
    keys: Keyring, store: Store, by_name: bool
) -> None:
    key, secret = keys.create(NewKey(name="a"))
    keys.revoke("a" if by_name else key.key_id)
    for ring in (keys, Keyring(store)):
        assert ring.table.required
        assert ring.table.find(secret.encode()) is None
        assert ring.all()[0].revoked is not None


def test_the_name_of_a_revoked_key_can_be_taken_again_and_means_the_new_one(keys: Keyring) -> None:
    old, _ = keys.create(NewKey(name="a"))
    keys.revoke("a")
    new, _ = keys.create(NewKey(name="a"))
    assert keys.revoke("a").key_id == new.key_id != old.key_id


def test_a_name_that_is_in_use_is_409(keys: Keyring) -> None:
    key, _ = keys.create(NewKey(name="a"))
    for name in ("a", key.key_id):
        with pytest.raises(Problem) as caught:
            keys.create(NewKey(name=name))
        assert caught.value.status == 409


def test_an_unknown_key_to_revoke_is_404(keys: Keyring) -> None:
    with pytest.raises(Problem) as caught:
        keys.revoke("nobody")
    assert (caught.value.status, caught.value.code) == (404, "key_not_found")


def test_forgetting_all_keys_opens_the_server_again_unless_it_is_exposed(keys: Keyring, store: Store) -> None:
    keys.create(NewKey())
    keys.create(NewKey())
    assert keys.remove_all() == 2
    assert not keys.table.required and keys.all() == []
    assert Keyring(store, always_required=True).table.required


def test_the_owners_key_does_everything_and_is_in_no_listing_and_no_file(keys: Keyring, store: Store) -> None:
    secret = keys.open_for_owner()
    owner = keys.table.find(secret.encode())
    assert owner is not None and owner.scopes == {"use", "manage"} and owner.models is None
    assert not keys.table.required and keys.all() == []
    assert Keyring(store).table.find(secret.encode()) is None


def test_the_time_of_last_use_is_listed_at_once_and_written_by_flush(
    keys: Keyring, store: Store, tmp_path: Path
) -> None:
    key, _ = keys.create(NewKey())
    keys.used(key, 1234.5)
    assert keys.all() == [replace(key, last_used=1234.5)]
    with sqlite3.connect(tmp_path / "x.db") as db:
        assert db.execute("SELECT last_used FROM keys").fetchone() == (None,)
    keys.flush()
    assert Keyring(store).all() == keys.all() == [replace(key, last_used=1234.5)]


def test_a_change_is_on_the_disk_before_it_is_answered(keys: Keyring, store: Store) -> None:
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    keys.create(NewKey(name="a"))
    keys.revoke("a")
    store._db.set_trace_callback(None)
    plain = [line for line in said if "synchronous" in line or line in ("BEGIN IMMEDIATE", "COMMIT")]
    assert plain == ["PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=NORMAL"] * 2


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (NewKey(name="a b"), "'a b'"),
        (NewKey(name="x" * 101), "name"),
        (NewKey(scopes=()), "scope"),
        (NewKey(scopes=("use", "admin")), "admin"),
        (NewKey(models=()), "models"),
        (NewKey(models=("",)), "models"),
        (NewKey(expires_in=0), "0"),
        (NewKey(expires_in=float("nan")), "nan"),
        (NewKey(requests_per_minute=0), "requests_per_minute is 0"),
        (NewKey(tokens_per_minute=-1), "tokens_per_minute is -1"),
        (NewKey(requests_in_flight=0), "requests_in_flight is 0"),
        (NewKey(max_output_tokens=0), "max_output_tokens is 0"),
        (NewKey(max_request_seconds=0.0), "max_request_seconds is 0"),
        (NewKey(max_request_seconds=float("inf")), "max_request_seconds is inf"),
    ],
)
def test_what_cant_be_a_key_is_400_and_named(keys: Keyring, wanted: NewKey, said: str) -> None:
    with pytest.raises(Problem) as caught:
        keys.create(wanted)
    assert caught.value.status == 400
    assert said in str(caught.value)
    assert keys.all() == []


@pytest.mark.parametrize(
    "change",
    [
        "scopes = 'root'",
        "scopes = '\"use\"'",
        "scopes = '[1]'",
        "scopes = '{}'",
        "scopes = CAST(x'ff' AS TEXT)",
        f"scopes = '{'[' * 100_000}'",
        "models = 'llama'",
        "models = '[[]]'",
        "digest = x'00'",
        "expires = 9e999",
    ],
)
def test_one_damaged_key_is_refused_and_keeps_neither_the_server_nor_another_key(
    keys: Keyring, store: Store, change: str
) -> None:
    _, damaged = keys.create(NewKey(name="damaged"))
    other, secret = keys.create(NewKey(name="other"))
    store._db.execute(f"UPDATE keys SET {change} WHERE name = 'damaged'")
    again = Keyring(store)
    assert again.table.find(damaged.encode()) is None
    assert again.table.find(secret.encode()) == other
    assert [key.name for key in again.all()] == ["other"]


def test_a_server_whose_only_key_is_damaged_stays_closed_until_all_keys_are_removed(
    keys: Keyring, store: Store
) -> None:
    keys.create(NewKey())
    store._db.execute("UPDATE keys SET scopes = 'root'")
    again = Keyring(store)
    assert again.table.required and again.all() == []
    assert again.remove_all() == 1
    assert not again.table.required and not Keyring(store).table.required


def test_revoked_and_expired_keys_have_an_end_and_a_key_is_still_required(
    keys: Keyring, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinference.keys.keyring.DEAD_KEPT", 3)
    keys.create(NewKey(name="expired", expires_in=1e-9))
    for number in range(10):
        keys.create(NewKey(name=f"k{number}"))
        keys.revoke(f"k{number}")
    assert [key.name for key in keys.all()] == ["k7", "k8", "k9"]
    assert keys.table.required and keys.table.by_digest == {}
    again = Keyring(store)
    assert again.table.required and [key.name for key in again.all()] == ["k7", "k8", "k9"]


def test_keys_that_are_valid_are_never_removed(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xinference.keys.keyring.DEAD_KEPT", 1)
    valid = [keys.create(NewKey(name=f"valid{number}", expires_in=1e6))[0] for number in range(5)]
    for number in range(5):
        keys.create(NewKey(name=f"k{number}"))
        keys.revoke(f"k{number}")
    assert [key for key in keys.all() if key.revoked is None] == valid


def test_a_key_on_a_full_disk_is_refused_by_type_and_does_not_exist(keys: Keyring, store: Store) -> None:
    store._db.execute("CREATE TABLE rest(text TEXT)")
    store._db.execute("PRAGMA max_page_count=1")
    with pytest.raises(Problem) as refused:
        for _ in range(200):
            keys.create(NewKey(models=("m" * 90,)))
    assert (refused.value.code, refused.value.status) == ("disk_full", 507)
    assert len(keys.all()) == len(Keyring(store).all())


def test_the_limits_of_one_answer_are_kept_changed_and_removed(keys: Keyring, store: Store) -> None:
    key, secret = keys.create(NewKey("a", max_output_tokens=9, max_request_seconds=0.5))
    assert Keyring(store).table.find(secret.encode()) == key
    assert (key.to_dict()["max_output_tokens"], key.to_dict()["max_request_seconds"]) == (9, 0.5)
    changed = keys.update("a", {"max_output_tokens": None, "max_request_seconds": 60.0})
    assert (changed.max_output_tokens, changed.max_request_seconds) == (None, 60.0)
    assert Keyring(store).table.find(secret.encode()) == changed


def test_a_key_is_changed_at_once_with_the_same_secret_and_after_a_restart(keys: Keyring, store: Store) -> None:
    key, secret = keys.create(NewKey("a", models=("m",), requests_per_minute=5, expires_in=60.0))
    other, _ = keys.create(NewKey("b"))
    changes = {"name": "c", "scopes": ("use", "monitor"), "models": ("n",), "requests_per_minute": None}
    changed = keys.update("a", changes | {"tokens_per_minute": 9, "expires_in": None})
    assert changed.name == "c" and changed.scopes == {"use", "monitor"}
    assert set(changed.models or ()) == {"n"}
    assert (changed.requests_per_minute, changed.tokens_per_minute, changed.expires) == (None, 9, None)
    for ring in (keys, Keyring(store)):
        assert ring.table.find(secret.encode()) == changed
    assert keys.update(key.key_id, {"models": None}).models is None
    assert keys.update(key.key_id, {}) == keys.table.find(secret.encode())
    for wrong, status in (({"scopes": ("x",)}, 400), ({"models": ()}, 400), ({"name": "b"}, 409), ({"name": ""}, 400)):
        with pytest.raises(Problem) as refused:
            keys.update("c", wrong)
        assert refused.value.status == status
    keys.revoke("c")
    with pytest.raises(Problem, match="is revoked"):
        keys.update("c", {"name": "d"})
    with pytest.raises(Problem, match="no key 'nobody'"):
        keys.update("nobody", {})
    assert other in keys.all()
