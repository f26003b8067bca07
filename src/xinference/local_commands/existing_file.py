"""Refuses a file that does not exist, in commands that run on the user's own machine."""

from __future__ import annotations

from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hubs.local_files import near_files_hint


def require_file(path: Path, *, or_repository: bool = False) -> None:
    """Raise a problem if nothing exists at `path`; `or_repository`: the command also takes a repository of a hub.

    The server gives one answer for existing and missing files, because a path may be one of its own. A local command
    runs with the rights of the user, so it can name the fault.

    Raises:
        Problem: 400 ``model_path_not_found``, with files of similar names.
    """
    if not path.exists():
        repository = "; a repository is named as owner/name" if or_repository else ""
        hint = near_files_hint(path) or f"Check the path{repository}."
        raise bad_request(f"{path} does not exist.", hint=hint, code=Code.MODEL_PATH_NOT_FOUND)
