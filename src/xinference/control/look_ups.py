"""The look-ups of names on hubs, stored in files for launches without a connection to a hub. Blocks."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from xinference.catalog.models import ModelFamily
from xinference.files.small_file import read_small
from xinference.launch.request import LaunchRequest, decode_request

log = logging.getLogger(__name__)


class LookUps:
    """The resolved requests by the fields on which the result depends, one file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, request: LaunchRequest) -> LaunchRequest | None:
        """The stored result for a request; None: there is none, or its file is damaged."""
        return _read(self._path(request))

    def save(self, request: LaunchRequest, resolved: LaunchRequest) -> None:
        """Store the result for a request. A failure is only logged: only an offline launch needs the file."""
        path = self._path(request)
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(resolved))
            draft.replace(path)
        except OSError as error:
            log.warning("the look-up of %s can't be stored in %s: %s", request.model_name, path, error.strerror)

    def families(self) -> list[ModelFamily]:
        """The families of all stored results."""
        families: dict[tuple[object, ...], ModelFamily] = {}
        for path in sorted(self._folder.glob("*.json")):
            cached = _read(path)
            if cached is not None and cached.family is not None:
                # Several requests for one repository, such as for two quantizations, have the same family.
                sources = (source for spec in cached.family.model_specs for source in spec.sources)
                families[cached.model_name, *((s.hub, s.model_id, s.revision) for s in sources)] = cached.family
        return list(families.values())

    def _path(self, request: LaunchRequest) -> Path:
        name_and_format = (request.model_name.strip(), request.model_type, request.model_format, request.quantization)
        key = (*name_and_format, request.model_size_in_billions, request.download_hub, request.model_engine)
        return self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.json"


def _read(path: Path) -> LaunchRequest | None:
    try:
        return decode_request(read_small(path))
    except (OSError, ValueError, RecursionError):
        return None
