"""The registered hubs."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.local_folder import LocalFolderHub
from xinference.hubs.package_index.hub import PackageIndexHub
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.hubs.repositories.modelscope import ModelScopeHub


def all_hubs(settings: Settings) -> Mapping[str, Hub]:
    """All hubs by name. Their client libraries are imported at the first fetch."""
    hubs: tuple[Hub, ...] = (
        LocalFolderHub(),
        HuggingFaceHub(settings),
        ModelScopeHub(settings),
        PackageIndexHub(settings),
    )
    return {hub.name: hub for hub in hubs}
