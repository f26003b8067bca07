"""The store of launchable models: the built-in families, and those that the user registered.

Persisted registrations are in ``$XINFERENCE_HOME/model/{llm,embedding,rerank}/<name>.json``, unchanged; the others
end with this server. Calls are short and block for one small file; only one task calls them at a time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xinference.catalog.models import ModelFamily, ModelType
from xinference.catalog.registrations import MODEL_TYPES, Registration, read_registration
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near, not_found
from xinference.files.atomic_file import atomic_write
from xinference.files.durability import sync_folder
from xinference.files.small_file import read_small

log = logging.getLogger(__name__)
#: Maximum size of a document, in bytes.
MAX_DOCUMENT = 16 << 20


@dataclass(frozen=True)
class BrokenRegistration:
    """A persisted document that can't be read. It is listed, and other models are not affected."""

    path: Path
    model_type: ModelType
    problem: Problem

    @property
    def name(self) -> str:
        return self.path.stem

    def to_dict(self) -> dict[str, Any]:
        """Its entry in a list of models, as JSON."""
        return {
            "model_name": self.name,
            "is_builtin": False,
            "path": str(self.path),
            "problem": self.problem.to_dict(),
        }


class Registrations:
    """Owns the registered models of one home."""

    def __init__(self, home: Path, builtin: Mapping[str, ModelFamily]) -> None:
        """`builtin` are the families of the release; `use_catalog` adds those of an update."""
        self._folder = home / "model"
        self._shipped = self._builtin = builtin
        self._updates: Mapping[str, ModelFamily] = {}
        self._registered: dict[str, Registration] = {}
        self._paths: dict[str, Path] = {}
        self._families: Mapping[str, ModelFamily] = builtin
        self.broken: tuple[BrokenRegistration, ...] = ()

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """Every family by its name. The mapping is never modified, only replaced."""
        return self._families

    def use_catalog(self, builtin: Mapping[str, ModelFamily], updates: Mapping[str, ModelFamily]) -> None:
        """Use other built-in families, of which `updates` do not come from the release.

        A registered model with the name of an update stays, and hides it.
        """
        self._builtin, self._updates = builtin, updates
        self._publish()

    def update(self, name: str) -> ModelFamily | None:
        """The family of this name if it comes from an update of the catalog, case-insensitive."""
        lowered = name.strip().lower()
        found = next((known for known in self._updates if known.lower() == lowered), None)
        return self._families.get(found) if found is not None and self.find(found) is None else None

    def load(self) -> None:
        """Read the persisted registrations. A file that can't be read is reported in the log and in `broken`."""
        broken: list[BrokenRegistration] = []
        for model_type in MODEL_TYPES:
            self._remove_drafts(model_type)
            for path in self._files(model_type):
                try:
                    registration = self._read_stored(model_type, path)
                except Problem as problem:
                    log.error("the registration in %s can't be loaded: %s", path, problem)
                    broken.append(BrokenRegistration(path, model_type, problem))
                    continue
                self._registered[registration.family.model_name] = registration
                self._paths[registration.family.model_name] = path
        self.broken = tuple(broken)
        self._publish()

    def find(self, name: str) -> Registration | None:
        """A registered model by its name, case-insensitive."""
        lowered = name.strip().lower()
        return next((r for known, r in self._registered.items() if known.lower() == lowered), None)

    def add(self, model_type: ModelType, text: str, *, persist: bool) -> Registration:
        """Register a model; with `persist` its file is on the disk on return.

        Raises:
            Problem: 400, which names the field or the existing name; 507 ``disk_full``, 500 ``cannot_write``.
        """
        registration = read_registration(model_type, text, self._builtin)
        name = registration.family.model_name
        self._check_free(name, self._builtin)
        for spec in registration.family.model_specs:
            for source in spec.sources:
                if source.hub == "local" and not _exists(source.model_id):
                    raise Problem(
                        Code.INVALID_REGISTRATION,
                        f"Invalid model URI {source.model_id}: the path does not exist on the server's machine.",
                        hint="Pass a path that exists on the server's machine.",
                    )
        if persist:
            path = self._folder / model_type.lower() / f"{name}.json"
            with atomic_write(path, threading.Event()) as file:
                assert file is not None
                file.write(text.encode())
            self._paths[name] = path
            # The new file has replaced a broken one of this name.
            self.broken = tuple(b for b in self.broken if b.path != path)
        self._registered[name] = registration
        self._publish()
        for note in registration.notes:
            log.warning("registration of %s: %s", name, note)
        return registration

    def remove(self, model_type: ModelType, name: str, users: Iterable[str]) -> None:
        """Remove a registered model; `users` are the deployments that run it.

        Raises:
            Problem: 404 with similar names; 400 for a built-in model; 409 ``in_use``, which names the deployments.
        """
        registration = self.find(name)
        if registration is None or registration.family.model_type != model_type:
            self._remove_broken(model_type, name)
            return
        running = sorted(users)
        if running:
            raise Problem(
                Code.IN_USE,
                f"{name} is used by the model{'s' if len(running) > 1 else ''} {', '.join(running)}.",
                hint=f"End it first: `xinference terminate {running[0]}`.",
            )
        known = registration.family.model_name
        if (path := self._paths.get(known)) is not None:
            self._delete(path)
            del self._paths[known]
        del self._registered[known]
        self._publish()

    def _remove_broken(self, model_type: ModelType, name: str) -> None:
        for broken in self.broken:
            if broken.model_type == model_type and broken.name.lower() == name.strip().lower():
                self._delete(broken.path)
                self.broken = tuple(b for b in self.broken if b is not broken)
                return
        if any(known.lower() == name.strip().lower() for known in self._builtin):
            raise Problem(Code.BUILTIN_MODEL, f"{name} is a built-in model, which can't be removed.")
        close = near(name, self._registered)
        raise not_found(
            f"Model {name} not found among the registered {model_type} models.",
            hint=f"Did you mean {join_names(close)}?" if close else "`xinference registrations` lists them.",
            code=Code.MODEL_NOT_FOUND,
        )

    def _check_free(self, name: str, builtin: Mapping[str, ModelFamily]) -> None:
        taken = {known.lower() for known in builtin}
        if name.lower() in taken:
            raise Problem(
                Code.NAME_TAKEN,
                f"model_name: Model name conflicts with existing model {name}, a built-in one.",
                hint="Choose another name.",
            )
        if self.find(name) is not None:
            raise Problem(
                Code.NAME_TAKEN,
                f"model_name: Model name conflicts with existing model {name}: Model {name} already registered.",
                hint=f"Choose another name, or `xinference unregister --model-name {name}` first.",
            )

    def _files(self, model_type: ModelType) -> list[Path]:
        paths: list[Path] = []
        # Xinference 3 has a separate folder for its registrations.
        for folder in (self._folder / model_type.lower(), self._folder / "v2" / model_type.lower()):
            try:
                paths += sorted(path for path in folder.glob("*.json") if path.is_file())
            except OSError as error:
                log.error("registrations in %s can't be listed: %s", folder, error.strerror)
        return paths

    def _read_stored(self, model_type: ModelType, path: Path) -> Registration:
        """Read one persisted registration.

        Raises:
            Problem: it cannot be used, whatever its file contains.
        """
        try:
            registration = read_registration(model_type, _read(path), self._builtin)
        except (RecursionError, ValueError, TypeError, OverflowError) as error:  # a damaged file
            cause = f"{path} can't be read: {error}."
            raise Problem(Code.UNREADABLE_REGISTRATION, cause, hint="Register the model again.") from None
        self._check_free(registration.family.model_name, self._shipped)
        return registration

    def _remove_drafts(self, model_type: ModelType) -> None:
        """Delete the unfinished files of a server that was killed: no other process writes here."""
        folder = self._folder / model_type.lower()
        with contextlib.suppress(OSError):
            for draft in folder.glob(".*.json.partial"):
                draft.unlink(missing_ok=True)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink()
            sync_folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Problem(
                Code.CANNOT_DELETE, f"{path} can't be deleted: {error.strerror}.", hint="Check its permissions."
            ) from error

    def _publish(self) -> None:
        added = {name: registration.family for name, registration in self._registered.items()}
        self._families = _Families(self._builtin, MappingProxyType(added))


class _Families(Mapping[str, ModelFamily]):
    """The built-in and the registered families, which hide those of their names. None is read before its use."""

    def __init__(self, builtin: Mapping[str, ModelFamily], added: Mapping[str, ModelFamily]) -> None:
        self._builtin, self._added = builtin, added
        self._taken = frozenset(name.lower() for name in added)

    def __iter__(self) -> Iterator[str]:
        visible = self._builtin
        if self._taken:
            return chain((name for name in visible if name.lower() not in self._taken), self._added)
        return iter(visible)

    def __len__(self) -> int:
        return sum(1 for _ in self) if self._taken else len(self._builtin)

    def __contains__(self, name: object) -> bool:
        return name in self._added or (name in self._builtin and str(name).lower() not in self._taken)

    def __getitem__(self, name: str) -> ModelFamily:
        if name in self._added:
            return self._added[name]
        if name.lower() in self._taken:
            raise KeyError(name)
        return self._builtin[name]


def _read(path: Path) -> bytes:
    try:
        return read_small(path, MAX_DOCUMENT)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Problem(
                Code.INVALID_REGISTRATION, f"{path} has more than {MAX_DOCUMENT} bytes.", hint="Delete it."
            ) from None
        raise Problem(
            Code.UNREADABLE_REGISTRATION, f"{path} can't be read: {error.strerror}.", hint="Check its permissions."
        ) from error


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return False
