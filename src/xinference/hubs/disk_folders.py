"""The folders whose disks a server fills."""

from __future__ import annotations

from pathlib import Path

from xinference.config import Settings
from xinference.hubs.repositories.huggingface_cache import cache_folder


def disk_folders(settings: Settings) -> dict[str, Path]:
    """The folders by their names: the home, the cache into which weights are downloaded, and the environments."""
    return {"home": settings.home, "cache": cache_folder(), "environments": settings.home / "environments"}
