"""The catalogs of one home: the families of the release, and the updates in ``$XINFERENCE_HOME/catalog``.

An update is one file, named by its hash. ``state.json`` names the updates in their order, and its replacement is the
moment at which an update takes effect. Calls block for files of a few megabytes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xinference.catalog.catalog_document import (
    MAX_BYTES,
    CatalogDocument,
    bad_catalog,
    read_catalog,
    sha256_of,
    write_catalog,
)
from xinference.catalog.catalog_version import BUILTIN_VERSION, order
from xinference.catalog.models import ModelFamily
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.atomic_file import atomic_write
from xinference.files.locks import locked
from xinference.files.small_file import read_small

log = logging.getLogger(__name__)
#: Maximum number of updates that are kept; the oldest is deleted first.
MAX_KEPT = 5


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One stored update."""

    version: str
    sha256: str
    """Of the stored file."""
    source: str
    created: float
    """Seconds since 1970."""
    families: int
    selected: bool = False
    """Only some families were taken from their source; the others are those of the catalog before."""


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """The updates, oldest first; the last one is in use."""

    entries: tuple[CatalogEntry, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The families that are taken from a catalog; each field that is None permits all."""

    model_type: str | None = None
    model_name: str | None = None

    def has(self, family: ModelFamily) -> bool:
        """Whether a family is selected."""
        return (self.model_type is None or family.model_type == self.model_type) and (
            self.model_name is None or family.model_name.lower() == self.model_name.lower()
        )

    @property
    def is_all(self) -> bool:
        return self.model_type is None and self.model_name is None


class UpdatedFamilies(Mapping[str, ModelFamily]):
    """The families of a release, of which some are replaced and to which some are added. Never modified."""

    def __init__(self, builtin: Mapping[str, ModelFamily], updates: Mapping[str, ModelFamily]) -> None:
        self._builtin = builtin
        self.updates = updates
        self._names = sorted({*builtin, *updates})

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self.updates or name in self._builtin

    def __getitem__(self, name: str) -> ModelFamily:
        return self.updates[name] if name in self.updates else self._builtin[name]


class CatalogStore:
    """Owns the updates of one home."""

    def __init__(self, home: Path, builtin: Mapping[str, ModelFamily]) -> None:
        self._folder = home / "catalog"
        self._builtin = builtin
        self._updates: Mapping[str, ModelFamily] = {}
        self.entries: tuple[CatalogEntry, ...] = ()
        """The updates, oldest first."""
        self.version = BUILTIN_VERSION
        """The version in use."""
        self.problem: Problem | None = None
        """The reason why the last update is not in use."""

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """The families in use, by name. The mapping is never modified, only replaced."""
        return UpdatedFamilies(self._builtin, self._updates) if self._updates else self._builtin

    @property
    def updates(self) -> Mapping[str, ModelFamily]:
        """The families in use that do not come from the release."""
        return self._updates

    @property
    def current(self) -> CatalogEntry | None:
        """The update in use; None: the families of the release are."""
        return self.entries[-1] if self._updates else None

    def load(self) -> None:
        """Read the update in use. If it can't be used, the families of the release are, and the log names the file."""
        self.problem, self._updates, self.version, self.entries = None, {}, BUILTIN_VERSION, ()
        try:
            self.entries = self._read_state()
            if self.entries and order(self.entries[-1].version) < order(BUILTIN_VERSION):
                log.info("the catalog of this release, %s, is newer than the stored update", BUILTIN_VERSION)
            elif self.entries:
                self._updates = self._read(self.entries[-1]).by_name
                self.version = self.entries[-1].version
        except Problem as problem:
            self.problem = problem
            log.warning("the built-in catalog is used: %s", problem.cause)

    def before(self) -> Mapping[str, ModelFamily]:
        """The families of the catalog that a rollback would bring back.

        Raises:
            Problem: 400 ``bad_catalog``, its file is damaged.
        """
        earlier = self.entries[:-1]
        if not earlier or order(earlier[-1].version) < order(BUILTIN_VERSION):
            return self._builtin
        return UpdatedFamilies(self._builtin, self._read(earlier[-1]).by_name)

    def candidate(
        self, text: bytes, origin: str, selection: Selection
    ) -> tuple[CatalogDocument, Mapping[str, ModelFamily]]:
        """A document and the families with it, without a change of the store.

        Raises:
            Problem: 400 ``bad_catalog``; 409 ``catalog_older``.
        """
        document = read_catalog(text, origin, self._builtin)
        if order(document.version) < order(self.version):
            raise Problem(
                Code.CATALOG_OLDER,
                f"The catalog {origin} has the version {document.version}, and {self.version} is in use.",
                hint="`xinference catalog rollback` returns to the previous catalog.",
            )
        updates = document.by_name
        if not selection.is_all:
            selected = {name: family for name, family in updates.items() if selection.has(family)}
            if not selected:
                raise bad_catalog(origin, "it has no family of this name and type")
            updates = {**self._updates, **selected}
        return document, UpdatedFamilies(self._builtin, updates)

    def apply(self, text: bytes, origin: str, selection: Selection | None = None) -> CatalogEntry | None:
        """Store a document and use its families; None: they are in use already.

        Raises:
            Problem: as `candidate`; 507 ``disk_full``, 500 ``cannot_write``. Nothing is changed then.
        """
        selection = selection or Selection()
        with self._locked():
            document, families = self.candidate(text, origin, selection)
            assert isinstance(families, UpdatedFamilies)
            if families.updates == self._updates and (order(document.version) == order(self.version)):
                return None
            version = document.version
            if not selection.is_all:  # so that a later update of this version brings the other families
                version, text = self.version, write_catalog(self.version, families.updates.values())
                read_catalog(text, origin, self._builtin)
            self._check_new(version, origin, selection)
            entry = CatalogEntry(
                version=version,
                sha256=sha256_of(text),
                source=origin,
                created=time.time(),
                families=len(families.updates),
                selected=not selection.is_all,
            )
            _write(self._path(entry), text)
            self._write_state((*self.entries, entry)[-MAX_KEPT:])
            self.version, self._updates, self.problem = version, families.updates, None
            return entry

    def rollback(self) -> None:
        """Use the catalog before the last update; the update is deleted, with earlier ones whose files are damaged.

        Raises:
            Problem: 409 ``no_earlier_catalog``.
        """
        with self._locked():
            if not self.entries:
                raise Problem(
                    Code.NO_EARLIER_CATALOG,
                    f"The built-in catalog {BUILTIN_VERSION} is in use, and there is no earlier one.",
                    hint="`xinference catalog update` fetches another one.",
                )
            earlier = self.entries[:-1]
            while earlier and not self._is_intact(earlier[-1]):
                earlier = earlier[:-1]
            self._write_state(earlier)
            self.load()

    def _check_new(self, version: str, origin: str, selection: Selection) -> None:
        current = self.current
        if current is None or current.selected or not selection.is_all or order(version) != order(current.version):
            return
        raise Problem(
            Code.CATALOG_OLDER,
            f"The catalog {origin} has the version {version}, which is in use with other families.",
            hint="A changed catalog needs a larger version.",
        )

    # -- files ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder, and read what another process has changed meanwhile."""
        try:
            with locked(self._folder, threading.Event(), "the catalog"):
                self.load()
                yield
        except OSError as error:
            cause = f"{error.filename or self._folder} cannot be written: {error.strerror}."
            raise Problem(Code.CANNOT_WRITE, cause, hint="Check the folder's permissions and its disk.") from error

    def _path(self, entry: CatalogEntry) -> Path:
        return self._folder / f"{entry.sha256}.json"

    def _read(self, entry: CatalogEntry) -> CatalogDocument:
        """The document of a stored update.

        Raises:
            Problem: 400 ``bad_catalog``, which names the file.
        """
        path = self._path(entry)
        try:
            text = read_small(path, MAX_BYTES)
        except OSError as error:
            raise bad_catalog(str(path), f"it can't be read: {error.strerror}") from None
        if sha256_of(text) != entry.sha256:
            raise bad_catalog(str(path), "it is not the file that was stored")
        return read_catalog(text, str(path), self._builtin)

    def _is_intact(self, entry: CatalogEntry) -> bool:
        try:
            self._read(entry)
        except Problem as problem:
            log.warning("the catalog before is left out: %s", problem.cause)
            return False
        return True

    def _read_state(self) -> tuple[CatalogEntry, ...]:
        path = self._folder / "state.json"
        try:
            entries = msgspec.json.decode(read_small(path), type=_State).entries
            for entry in entries:
                order(entry.version)
                if len(entry.sha256) != 64 or not entry.sha256.isalnum():
                    raise ValueError("sha256 is not a hash")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise bad_catalog(str(path), f"it can't be read: {error.strerror}") from None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise bad_catalog(str(path), str(error)) from None
        return entries

    def _write_state(self, entries: tuple[CatalogEntry, ...]) -> None:
        _write(self._folder / "state.json", msgspec.json.encode(_State(entries=entries)))
        self.entries = entries
        kept = {self._path(entry).name for entry in entries} | {"state.json"}
        for path in self._folder.glob("*.json"):
            if path.name not in kept:
                with contextlib.suppress(OSError):  # the next change deletes it
                    path.unlink()


def _write(path: Path, text: bytes) -> None:
    with atomic_write(path, threading.Event()) as file:
        assert file is not None
        file.write(text)
