"""Whether something is supported, and the reason where it is not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Support:
    """Whether something is supported; true if there is no reason against it."""

    reason: str | None = None
    """The reason why it is not supported; None: it is supported."""

    def __bool__(self) -> bool:
        return self.reason is None


YES = Support()
