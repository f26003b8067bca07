"""Finds the files that a model in no registry is derived from: a folder of this machine, or a repository on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xinference.catalog.models import Source
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.hubs.base import Hub
from xinference.hubs.local_files import is_gguf_file, is_model_path, near_files_hint, path_of
from xinference.hubs.repositories.repository import RepositoryHub
from xinference.launch.request import LaunchRequest
from xinference.weights.file_source import FileSource, FolderSource, RepositorySource
from xinference.weights.reference import Reference, reference

#: The hubs for a repository id, in this order, if the request names none.
_HUBS = ("huggingface", "modelscope")


@dataclass(frozen=True)
class Origin:
    """The files to derive from, with the name and source of the model."""

    file_source: FileSource
    title: str
    """The name of the origin in messages."""
    name: str
    """The base of the model's name."""
    file: str | None
    """The file that the request names."""
    source: Source


def find_origin(what: Reference, request: LaunchRequest, hubs: Mapping[str, Hub], preferred: str | None) -> Origin:
    """The files of a path or a repository. `preferred`: the hub for a repository id, if the request names none.

    Raises:
        Problem: 400: the path is none of a model, or the hub has no repositories; the hub's problems.
    """
    if what.path is not None:
        return _local(request, what.path)
    return _remote(what, request, hubs, preferred)


def _local(request: LaunchRequest, path_text: str) -> Origin:
    path = path_of(path_text)
    if not path.is_absolute():
        raise bad_request(
            f"{path_text} is a relative path, but the server has a different working directory.",
            hint="Pass the absolute path.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    if not is_model_path(path):
        # The same problem whether a file exists or not: the path may be one of the server's own files.
        raise bad_request(
            f"{path_text} does not exist on the server's machine, or is neither a GGUF file nor the folder of a model.",
            hint="Check the path; a repository is named as owner/name.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    if not path.exists():
        raise bad_request(
            f"{path_text} does not exist on the server's machine.",
            hint=near_files_hint(path) or "Check the path; a repository is named as owner/name.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
    if file is not None and not file.lower().endswith(".gguf") and not is_gguf_file(path):
        raise bad_request(
            f"{path_text} is not a GGUF file.",
            hint="Pass a .gguf file, or the folder with the config.json and the safetensors.",
            code=Code.BAD_WEIGHT_FILE,
        )
    requested = request.model_name.strip()
    by_path = request.model_path is None or reference(requested) is not None
    name = path.absolute().name if by_path else requested
    return Origin(FolderSource(folder), path_text, name, file, Source(hub="local", model_id=str(folder.absolute())))


def _remote(what: Reference, request: LaunchRequest, hubs: Mapping[str, Hub], preferred: str | None) -> Origin:
    assert what.model_id is not None
    file_source = _repository(what.model_id, what.revision, hubs, request.download_hub or what.hub or preferred)
    return Origin(
        file_source,
        f"{request.model_name.strip()} on {file_source.hub.name}",
        (what.file or what.model_id).rpartition("/")[2],
        what.file,
        Source(hub=file_source.hub.name, model_id=what.model_id, revision=file_source.listing.revision),
    )


def _repository(model_id: str, revision: str | None, hubs: Mapping[str, Hub], named: str | None) -> RepositorySource:
    if named and named not in _HUBS:
        raise bad_request(
            f"{named} has no repositories by owner and name.",
            hint=f"Use one of {', '.join(_HUBS)}.",
            code=Code.UNKNOWN_HUB,
        )
    first: Problem | None = None
    for name in [named] if named else _HUBS:
        hub = hubs.get(name)
        assert isinstance(hub, RepositoryHub)
        try:
            return RepositorySource(hub, model_id, hub.listing(model_id, revision))
        except Problem as problem:
            if problem.code == Code.BAD_SOURCE:
                raise bad_request(
                    f"{model_id}@{revision} is not a repository id with a revision.",
                    hint="Name it as owner/name or owner/name@revision.",
                ) from None
            if first is None or (problem.code == Code.GATED_MODEL and first.code == Code.HUB_UNREACHABLE):
                first = problem
    assert first is not None
    raise first
