"""The registered hubs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.local_folder import LocalFolderHub
from xinference.hubs.package_index.hub import PackageIndexHub
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.hubs.repositories.modelscope import ModelScopeHub


def all_hubs(settings: Settings) -> Mapping[str, Hub]:
    """All hubs by name. Their client libraries are imported at the first fetch."""
    shared = Path(settings.shared_cache) if settings.shared_cache else None
    huggingface, modelscope = HuggingFaceHub(settings), ModelScopeHub(settings)
    if shared is not None:
        huggingface.shared, modelscope.shared = HuggingFaceHub(settings, shared), ModelScopeHub(settings, shared)
    hubs: tuple[Hub, ...] = (LocalFolderHub(), huggingface, modelscope, PackageIndexHub(settings, shared))
    return {hub.name: hub for hub in hubs}
