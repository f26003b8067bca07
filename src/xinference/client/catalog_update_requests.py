"""The requests about updates of the catalog; see `request`."""

from __future__ import annotations

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request

_CATALOG = "/v1/catalog"


def list_catalogs() -> Request[Json]:
    """The catalog in use, and all stored ones as ``catalogs``."""
    return Request(path=_CATALOG, read=answers.as_object)


def update_catalog(
    source: str | None = None,
    sha256: str | None = None,
    catalog: str | None = None,
    model_type: str | None = None,
    model_name: str | None = None,
) -> Request[Json]:
    """Use another catalog: the families that are ``added``, ``removed`` and ``changed``.

    Args:
        source: an ``https:`` address or a package; None: that of the server's settings.
        sha256: the hash of the catalog, which an address needs.
        catalog: the catalog itself, as the text of its JSON.
        model_type: take only the families of this type.
        model_name: take only this family.
    """
    return _change("update", source, sha256, catalog, model_type, model_name)


def compare_catalog(
    source: str | None = None,
    sha256: str | None = None,
    catalog: str | None = None,
    model_type: str | None = None,
    model_name: str | None = None,
) -> Request[Json]:
    """What `update_catalog` would change; without a source and a catalog, what the last update has changed."""
    if source is None and catalog is None:
        return Request(path=f"{_CATALOG}/diff", read=answers.as_object)
    return _change("diff", source, sha256, catalog, model_type, model_name)


def rollback_catalog() -> Request[Json]:
    """Use the catalog before the last update."""
    return Request(method="POST", path=f"{_CATALOG}/rollback", read=answers.as_object)


def update_model_type(model_type: str, source: str | None = None, sha256: str | None = None) -> Request[Json]:
    """Update the families of one type."""
    body = {"model_type": model_type, "source": source, "sha256": sha256}
    return Request(
        method="POST", path="/v1/models/update_type", body=body, read=answers.as_object, without_timeout=True
    )


def update_model_spec(
    model_type: str, model_name: str, source: str | None = None, sha256: str | None = None
) -> Request[Json]:
    """Update one family."""
    body = {"model_type": model_type, "model_name": model_name, "source": source, "sha256": sha256}
    return Request(
        method="POST", path="/v1/models/update_spec", body=body, read=answers.as_object, without_timeout=True
    )


def _change(
    action: str,
    source: str | None,
    sha256: str | None,
    catalog: str | None,
    model_type: str | None,
    model_name: str | None,
) -> Request[Json]:
    body = {
        "source": source,
        "sha256": sha256,
        "catalog": catalog,
        "model_type": model_type,
        "model_name": model_name,
    }
    return Request(method="POST", path=f"{_CATALOG}/{action}", body=body, read=answers.as_object, without_timeout=True)
