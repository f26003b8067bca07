"""Counts since the server's start: loads, unloads, restarts, downloaded bytes, and followers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Literal

from xinference.records.amounts import Histogram

#: Upper bounds of the times of a load, in seconds.
LOAD_BUCKETS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

UnloadReason = Literal["idle", "evicted", "asked", "died"]


class Counts:
    """Counted by the deployments and downloads of one server, from its event loop."""

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()
        """By uid: engines that were started again after they had exited by themselves."""
        self.loads: dict[str, Histogram] = {}
        """By uid: seconds from the begin of a load to the first replica that answers."""
        self.unloads: Counter[tuple[str, UnloadReason]] = Counter()
        self.downloaded: Counter[str] = Counter()
        """Bytes by hub."""
        self.followers = 0
        """The followers of the stream of changes now."""
        self.lost_changes = 0
        """How often a follower was too slow, and has lost changes."""

    def restarted(self, uid: str) -> None:
        """Count a restart of an engine."""
        self.restarts[uid] += 1

    def loaded(self, uid: str, seconds: float) -> None:
        """Count a load that has succeeded."""
        self.loads.setdefault(uid, Histogram(LOAD_BUCKETS)).add(seconds)

    def unloaded(self, uid: str, reason: UnloadReason) -> None:
        """Count an unload."""
        self.unloads[uid, reason] += 1

    def meter(self, hub: str) -> Callable[[int], None]:
        """A function that counts the bytes of one download; it is called with the bytes that are done, often."""
        last: int | None = None

        def count(done: int) -> None:
            nonlocal last
            # The first report may contain bytes of an earlier, interrupted download.
            self.downloaded[hub] += 0 if last is None else max(0, done - last)
            last = done

        return count

    def keep(self, uids: Collection[str]) -> None:
        """Forget the counts of all models but these."""
        self.restarts = Counter({uid: count for uid, count in self.restarts.items() if uid in uids})
        self.loads = {uid: histogram for uid, histogram in self.loads.items() if uid in uids}
        self.unloads = Counter({key: count for key, count in self.unloads.items() if key[0] in uids})
