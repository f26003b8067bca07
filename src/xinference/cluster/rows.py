"""The stored rows of a cluster: its nodes, its join tokens and the epoch of its server."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from xinference.nodes.join_tokens import TokenRow
from xinference.store.connection import Connection
from xinference.store.row_types import shown, stored_time

log = logging.getLogger(__name__)
#: A token is listed for so many seconds after its end.
TOKEN_KEPT_SECONDS = 7 * 24 * 3600.0
#: Maximum number of nodes of which it is known that their machines have left Ray.
MAX_GIVEN_BACK = 1000

#: A higher epoch than this one is damaged: no node has seen it, and each server counts one further.
MAX_EPOCH = 10**12

_EPOCH = re.compile(r"[0-9]{1,15}", re.ASCII)
_NODE_NAME = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_NODE_ID = re.compile(r"n[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node that has joined. Times are seconds since the epoch."""

    node_id: str
    name: str
    labels: Mapping[str, str]
    is_drained: bool
    added: float
    removed: float | None


class ClusterRows:
    """Reads and writes the rows of a cluster."""

    def __init__(self, store: Connection) -> None:
        self._store = store

    def next_epoch(self) -> int:
        """Count this server: nodes obey the one with the highest number.

        Raises:
            Problem: the row cannot be written.
        """
        stored = self._store.read("SELECT count(*) FROM cluster_values WHERE name = 'epoch'")
        found = (self._value("epoch") or "") if stored[0][0] else "0"
        if not _EPOCH.fullmatch(found) or int(found) > MAX_EPOCH:
            log.error("the stored epoch %s is damaged: the time is the next one, as it is higher", shown(found))
            found = str(int(time.time()))
        epoch = int(found) + 1
        self._set_value("epoch", str(epoch))
        return epoch

    def supervisor_id(self) -> str:
        """The id of the supervisor's own certificate.

        Raises:
            Problem: as `next_epoch`.
        """
        found = self._value("supervisor")
        if found is None or not _NODE_ID.fullmatch(found):
            found = new_node_id()
            self._set_value("supervisor", found)
        return found

    # -- nodes ------------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeRow]:
        """All nodes that ever joined, oldest first. A node whose row is damaged is refused like an unknown one."""
        columns = "node_id, name, labels, drained, added, removed"
        return [
            NodeRow(node_id, name, _labels(labels), bool(drained), stored_time(added), removed and stored_time(removed))
            for node_id, name, labels, drained, added, removed in self._store.rows(
                "cluster_nodes", columns, "ORDER BY added, node_id"
            )
            if _NODE_NAME.fullmatch(node_id)
        ]

    def node_of_key(self, key_hash: str) -> str | None:
        """The node with this key; None: there is none."""
        rows = self._store.rows("cluster_nodes", "node_id", "WHERE key_hash = ?", (key_hash,))
        return rows[0][0] if rows else None

    def add_node(self, node_id: str, name: str, key_hash: str, token: TokenRow) -> None:
        """Add a node, and store that it has used a token."""
        with self._store.write(durable=True) as db:
            db.execute(
                "INSERT OR IGNORE INTO cluster_nodes(node_id, name, key_hash, labels, added) VALUES (?, ?, ?, '{}', ?)",
                (node_id, name, key_hash, time.time()),
            )
            db.execute("UPDATE join_tokens SET uses_left = ? WHERE token_id = ?", (token.uses_left, token.token_id))

    def note_hello(self, node_id: str, name: str, labels: Mapping[str, str]) -> None:
        """Store what a node says of itself."""
        self._store.note(
            "UPDATE cluster_nodes SET name = ?, labels = ? WHERE node_id = ?",
            name,
            json.dumps(dict(labels), sort_keys=True),
            node_id,
        )

    def set_drained(self, node_id: str, drained: bool) -> None:
        """Store whether an operator takes a node out."""
        with self._store.write() as db:
            db.execute("UPDATE cluster_nodes SET drained = ? WHERE node_id = ?", (int(drained), node_id))

    def remove_node(self, node_id: str) -> None:
        """Store that a node is removed for ever: its certificate is refused."""
        with self._store.write(durable=True) as db:
            db.execute("UPDATE cluster_nodes SET removed = ? WHERE node_id = ?", (time.time(), node_id))

    def given_back(self) -> list[str]:
        """The removed nodes whose machines have left Ray, oldest first."""
        found = _decoded(self._value("given_back") or "[]")
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    def give_back(self, node_id: str) -> None:
        """Store that a node is removed because its machine has left Ray: the machine may join anew.

        Raises:
            Problem: as `next_epoch`.
        """
        self._set_value("given_back", json.dumps([*self.given_back(), node_id][-MAX_GIVEN_BACK:]))
        self.remove_node(node_id)

    # -- tokens -----------------------------------------------------------------------------------------------

    def tokens(self) -> list[TokenRow]:
        """The tokens that are valid, or were until a few days ago."""
        columns = "token_id, digest, expires, uses_left, revoked"
        rows = self._store.rows(
            "join_tokens", columns, "WHERE expires > ? ORDER BY expires", (time.time() - TOKEN_KEPT_SECONDS,)
        )
        # A damaged time is 0: the token has expired.
        return [TokenRow(row[0], row[1], stored_time(row[2]), row[3], bool(row[4])) for row in rows]

    def add_token(self, row: TokenRow) -> None:
        """Store a new token; those that ended long ago are deleted."""
        with self._store.write() as db:
            db.execute("DELETE FROM join_tokens WHERE expires < ?", (time.time() - TOKEN_KEPT_SECONDS,))
            db.execute(
                "INSERT INTO join_tokens(token_id, digest, expires, uses_left) VALUES (?, ?, ?, ?)",
                (row.token_id, row.digest, row.expires, row.uses_left),
            )

    def revoke_token(self, token_id: str) -> bool:
        """Revoke a token; returns whether there is one of this id."""
        with self._store.write(durable=True) as db:
            return db.execute("UPDATE join_tokens SET revoked = 1 WHERE token_id = ?", (token_id,)).rowcount > 0

    def delete_token(self, token_id: str) -> None:
        """Let no node join with a token any more, and list it no more."""
        with self._store.write() as db:
            db.execute("DELETE FROM join_tokens WHERE token_id = ?", (token_id,))

    # -- values -----------------------------------------------------------------------------------------------

    def _value(self, name: str) -> str | None:
        rows = self._store.rows("cluster_values", "value", "WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def _set_value(self, name: str, value: str) -> None:
        with self._store.write(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO cluster_values(name, value) VALUES (?, ?)", (name, value))


def new_node_id() -> str:
    """An id that no node has."""
    return f"n{secrets.token_hex(6)}"


def _labels(text: str) -> Mapping[str, str]:
    """The labels of a node; none if the row is damaged: the node says them again when it connects."""
    found = _decoded(text)
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _decoded(text: str) -> object:
    """A stored JSON value; None: it is damaged."""
    try:
        decoded: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return decoded
