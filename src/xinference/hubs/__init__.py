"""Where weights come from."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.huggingface import HuggingFaceHub
from xinference.hubs.modelscope import ModelScopeHub
from xinference.hubs.own_folder import OwnFolderHub
from xinference.hubs.package_index import PackageIndexHub


def all_hubs(settings: Settings) -> Mapping[str, Hub]:
    """Every hub by its name. Their client libraries are imported only when something is fetched."""
    hubs: tuple[Hub, ...] = (
        OwnFolderHub(),
        HuggingFaceHub(settings),
        ModelScopeHub(settings),
        PackageIndexHub(settings),
    )
    return {hub.name: hub for hub in hubs}
