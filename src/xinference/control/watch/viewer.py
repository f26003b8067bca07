"""Decides which topics and which changes the holder of a key may follow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.keys.key import Key
from xinference.keys.table import KeyTable

#: Topic -> what it is about.
TOPICS = {
    "models": "the launched models with their replicas",
    "launches": "the progress of launches and loads",
    "downloads": "downloads of weights",
    "requests": "the requests that run, and those that have ended",
    "events": "the events of models",
    "stats": "the rates of requests and the load of the machine",
    "devices": "the memory, the GPUs and the disks of the machine, and their owners",
}
_OF_THE_SERVER = frozenset(("stats", "devices"))
_OF_MANAGERS = frozenset(("downloads",))


@dataclass(frozen=True, slots=True)
class Viewer:
    """The holder of a key; None: no key is required."""

    key: Key | None

    @property
    def sees_all(self) -> bool:
        """Whether the holder may know of all models and requests."""
        return self.key is None or not self.key.scopes.isdisjoint(("manage", "monitor"))

    def may_follow(self, topic: str) -> bool:
        """Whether the holder may follow a topic."""
        if self.sees_all or self.key is None:
            return True
        return topic not in _OF_MANAGERS and (topic not in _OF_THE_SERVER or self.key.models is None)

    def sees(self, model: str | None, key_id: str | None) -> bool:
        """Whether the holder may see something about this model or the requests of this key."""
        if self.sees_all or self.key is None:
            return True
        if key_id is not None:
            return key_id == self.key.key_id
        return model is None or self.key.may_ask(model)

    def topics(self, names: str | None) -> tuple[str, ...]:
        """The topics that a request names, separated by commas; None: all that the holder may follow.

        Raises:
            Problem: 400 for an unknown topic, 403 for one that the holder may not follow.
        """
        if names is None:
            return tuple(topic for topic in TOPICS if self.may_follow(topic))
        chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
        _check(chosen)
        for topic in chosen:
            if not self.may_follow(topic):
                raise Problem(
                    Code.PERMISSION_DENIED,
                    f"Not enough permissions: this key may not follow the topic {topic!r}.",
                    hint="A key with the scope `manage` or `monitor` may follow all topics.",
                )
        return chosen


def _check(topics: Sequence[str]) -> None:
    known = ", ".join(TOPICS)
    if not topics:
        raise bad_request("`topics` names no topic.", hint=f"Use some of {known}.")
    for topic in topics:
        if topic not in TOPICS:
            raise bad_request(f"There is no topic {topic[:100]!r}.", hint=f"Use some of {known}.")


def current_viewer(key: Key | None, table: KeyTable, now: float) -> Viewer | None:
    """The holder with the key as it is now; None: the key or its session has ended, or requests need one since."""
    if key is None:
        return None if table.required else Viewer(None)
    newest = (table.sessions if key.session else table.by_digest).get(key.digest)
    if newest is None or (newest.expires is not None and newest.expires <= now):
        return None
    return Viewer(newest)
