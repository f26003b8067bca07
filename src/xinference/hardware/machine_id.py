"""The id of this machine, by which two processes know that they share its memory."""

from __future__ import annotations

from pathlib import Path

_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def machine_id() -> str:
    """The id of this machine; empty in a container, which has limits of its own, or if the system has none."""
    if any(mark.exists() for mark in _CONTAINER_MARKS):
        return ""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
