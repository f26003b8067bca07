"""Python clients of the REST interface: `Client`, and `AsyncClient` whose methods are awaited.

Names of older versions, such as ``RESTfulClient``, still exist. Modules are imported at the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xinference.client.client import AsyncClient, Client
    from xinference.client.client import AsyncClient as AsyncRESTfulClient
    from xinference.client.client import Client as RESTfulClient
    from xinference.client.handles import (
        AsyncRESTfulChatModelHandle,
        AsyncRESTfulEmbeddingModelHandle,
        AsyncRESTfulGenerateModelHandle,
        AsyncRESTfulModelHandle,
        AsyncRESTfulRerankModelHandle,
        RESTfulChatModelHandle,
        RESTfulEmbeddingModelHandle,
        RESTfulGenerateModelHandle,
        RESTfulModelHandle,
        RESTfulRerankModelHandle,
    )

__all__ = [
    "AsyncClient",
    "AsyncRESTfulChatModelHandle",
    "AsyncRESTfulClient",
    "AsyncRESTfulEmbeddingModelHandle",
    "AsyncRESTfulGenerateModelHandle",
    "AsyncRESTfulModelHandle",
    "AsyncRESTfulRerankModelHandle",
    "Client",
    "RESTfulChatModelHandle",
    "RESTfulClient",
    "RESTfulEmbeddingModelHandle",
    "RESTfulGenerateModelHandle",
    "RESTfulModelHandle",
    "RESTfulRerankModelHandle",
]

_CLIENTS = {
    "AsyncClient": "AsyncClient",
    "AsyncRESTfulClient": "AsyncClient",
    "Client": "Client",
    "RESTfulClient": "Client",
}


def __getattr__(name: str) -> Any:
    if name in _CLIENTS:
        return getattr(import_module("xinference.client.client"), _CLIENTS[name])
    if name in __all__:
        return getattr(import_module("xinference.client.handles"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
