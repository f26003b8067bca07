"""`xinference keys` without a running server: the same answers, directly from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from xinference.config import Settings
from xinference.keys.keyring import Keyring
from xinference.keys.new_key import NewKey
from xinference.process.home import own_home
from xinference.store.database import Store

Json = dict[str, Any]


class KeyCommands:
    """One method for each subcommand, with the names of the client's methods."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    def list_keys(self) -> list[Json]:
        """Every key, also the revoked and expired ones."""
        return [key.to_dict() for key in self._keys.all()]

    def create_key(self, *, scopes: Sequence[str], models: Sequence[str] | None, **fields: Any) -> Json:
        """Create a key. Raises `Problem` as `Keyring.create`."""
        allowed = None if models is None else tuple(models)
        key, secret = self._keys.create(NewKey(scopes=tuple(scopes), models=allowed, **fields))
        return {**key.to_dict(), "key": secret}

    def update_key(self, key: str, **changes: Any) -> Json:
        """Change a key. Raises `Problem` as `Keyring.update`."""
        return self._keys.update(key, changes).to_dict()

    def revoke_key(self, key: str) -> Json:
        """Revoke a key. Raises `Problem` as `Keyring.revoke`."""
        return self._keys.revoke(key).to_dict()

    def forget_keys(self) -> Json:
        """Remove every key."""
        return {"removed": self._keys.remove_all()}


@contextmanager
def keys_of_home(settings: Settings) -> Iterator[KeyCommands]:
    """The keys of a home, which is locked for the block as a server locks it.

    Raises:
        Problem: ``home_taken``, if a server has locked it.
    """
    with own_home(settings), closing(Store(settings.home / "xinference.db")) as store:
        yield KeyCommands(Keyring(store))
