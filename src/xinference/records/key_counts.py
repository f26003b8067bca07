"""The requests and tokens of each key since the server's start."""

from __future__ import annotations

from xinference.records.record import Record

#: Maximum number of keys that are counted apart; the requests of others are counted together.
MAX_KEYS = 1000
#: The name under which the requests of all further keys are counted.
OTHERS = "others"


class KeyCounts:
    """Counts by the id of the key; used from one event loop, so it needs no lock."""

    def __init__(self, maximum: int = MAX_KEYS) -> None:
        self._maximum = maximum
        self.requests: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        """Tokens of prompts and answers."""

    def add(self, record: Record) -> None:
        """Count a request that has ended."""
        key = record.key_id
        if key not in self.requests and len(self.requests) >= self._maximum:
            key = OTHERS
        self.requests[key] = self.requests.get(key, 0) + 1
        self.tokens[key] = self.tokens.get(key, 0) + (record.prompt_tokens or 0) + (record.output_tokens or 0)
