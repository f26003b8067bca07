"""Updates the catalog of a home: fetches, compares, stores and rolls back. Models that run are not touched."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xinference.catalog.catalog_differences import differences
from xinference.catalog.catalog_store import CatalogEntry, CatalogStore, Selection
from xinference.catalog.catalog_version import BUILTIN_VERSION
from xinference.catalog.family_fields import fields_of
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import bad_request

if TYPE_CHECKING:
    from xinference.https.network import Network

log = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True)
class CatalogRequest:
    """A catalog that a user names, and the families that are taken from it."""

    source: str | None = None
    """An ``https:`` address or a package; None: that of the settings."""
    sha256: str | None = None
    catalog: str | None = None
    """The document itself; it has precedence over the source."""
    model_type: str | None = None
    model_name: str | None = None

    def selection(self) -> Selection:
        """The families that are taken.

        Raises:
            Problem: 400, there is no such type.
        """
        return Selection(None if self.model_type is None else model_type_of(self.model_type), self.model_name)


class CatalogUpdates:
    """Owns the catalog of one process. A change takes effect at once for what is launched later."""

    def __init__(
        self, settings: Settings, store: CatalogStore, registrations: Registrations, network: Network | None = None
    ) -> None:
        self._settings = settings
        self._store = store
        self._registrations = registrations
        self._network = network
        self._changing = asyncio.Lock()

    def load(self) -> None:
        """Read the stored update. One that is broken is not used, and the log names it."""
        self._store.load()
        self._use()

    def describe(self) -> Json:
        """The catalog in use, and the stored ones, newest first."""
        store = self._store
        current = store.current
        entries = [
            {"state": "in use" if each is current else "stored", **_entry(each)} for each in reversed(store.entries)
        ]
        builtin = {"state": "stored" if current else "in use", "version": BUILTIN_VERSION, "source": "built-in"}
        return {
            "version": store.version,
            "families": len(store.families),
            "source": self._settings.catalog_source or None,
            "problem": store.problem.to_dict() if store.problem else None,
            "catalogs": [*entries, builtin],
        }

    async def update(self, request: CatalogRequest) -> Json:
        """Fetch a catalog, check it and use it; answers with what has changed.

        Raises:
            Problem: the catalog can't be fetched or is refused. Nothing is changed then.
        """
        selection = request.selection()
        text, origin = await self._text(request)
        async with self._changing:
            before = self._store.families
            entry = await asyncio.to_thread(self._store.apply, text, origin, selection)
            self._use()
        if entry is not None:
            log.info("the catalog %s is in use: version %s, sha256 %s", origin, entry.version, entry.sha256)
        changed = differences(before, self._store.families)
        return {"updated": entry is not None, "version": self._store.version, **changed}

    async def compare(self, request: CatalogRequest | None = None) -> Json:
        """What an update would change; without a request, what the last update has changed.

        Raises:
            Problem: as `update`.
        """
        if request is None:
            before, after, version = self._store.before(), self._store.families, self._store.version
        else:
            selection = request.selection()
            text, origin = await self._text(request)
            document, after = await asyncio.to_thread(self._store.candidate, text, origin, selection)
            before, version = self._store.families, document.version
        return {"version": version, **differences(before, after)}

    async def rollback(self) -> Json:
        """Use the catalog before the last update.

        Raises:
            Problem: 409 ``no_earlier_catalog``.
        """
        async with self._changing:
            before = self._store.families
            await asyncio.to_thread(self._store.rollback)
            self._use()
        log.info("the catalog is rolled back to version %s", self._store.version)
        return {"version": self._store.version, **differences(before, self._store.families)}

    def _use(self) -> None:
        self._registrations.use_catalog(self._store.families, self._store.updates)

    async def _text(self, request: CatalogRequest) -> tuple[bytes, str]:
        """The document of a request, with its hash verified, and its origin."""
        from xinference.hubs.catalog_source import check_sha256, fetch_catalog, read_source

        if request.catalog is not None:
            text = request.catalog.encode()
            check_sha256(text, request.sha256, "file")
            return text, request.source or "file"
        named = request.source or self._settings.catalog_source
        if not named:
            raise bad_request(
                "The request names no source of a catalog, and XINFERENCE_CATALOG_SOURCE is not set.",
                hint="Name one: `xinference catalog update --from FILE|URL|PACKAGE`.",
                code=Code.NO_CATALOG_SOURCE,
            )
        source = read_source(named, request.sha256)
        return await fetch_catalog(source, self._settings, self._network), source.text


def _entry(entry: CatalogEntry) -> Json:
    fields: Json = fields_of(entry)
    return fields | {"created": int(entry.created)}
