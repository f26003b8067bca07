"""Checks the names of models in requests: a deployment's uid, and the names of its LoRA adapters."""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Mapping
from pathlib import Path

from xinference.catalog.registry import MODEL_NAME
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.launch.request import LaunchRequest
from xinference.routing.table import Route

MAX_UID_LENGTH = 100
#: Every folder of a PEFT adapter has this file.
ADAPTER_CONFIG = "adapter_config.json"
FORM = f"Use 1 to {MAX_UID_LENGTH} characters, without a space or any of + / ? % # & =."
_RANDOM = string.ascii_lowercase + string.digits


def is_valid(name: str) -> bool:
    """Whether requests can use this name."""
    return 0 < len(name) <= MAX_UID_LENGTH and MODEL_NAME.fullmatch(name) is not None


def uid_for(request: LaunchRequest, taken: Collection[str], reserved: Collection[str]) -> str:
    """The uid of a launch: the requested one, or else the model's name, with a random suffix if it is taken.

    Raises:
        Problem: 400, the uid is invalid.
    """
    if request.model_uid is not None:
        uid = request.model_uid.strip()
        if not is_valid(uid):
            raise bad_request(f"The model UID {request.model_uid!r} is invalid.", hint=FORM)
        return uid
    uid = name = request.model_name.strip()
    while uid in taken or uid in reserved:
        uid = f"{name}-{''.join(secrets.choice(_RANDOM) for _ in range(8))}"
    return uid


def check_adapters(model_type: str, modules: Mapping[str, str]) -> None:
    """Refuse adapters that can't be loaded; blocks, because it reads the disk.

    Raises:
        Problem: 400, names the adapter or the path.
    """
    if modules and model_type != "LLM":
        raise bad_request(f"LoRA adapters require an LLM, and this model's type is {model_type}.")
    for name, path in modules.items():
        if not is_valid(name):
            raise bad_request(f"The adapter's name {name!r} is invalid.", hint=FORM)
        # The same problem whether a file exists or not: the path may be one of the server's own files.
        if not _is_file(Path(path) / ADAPTER_CONFIG):
            raise bad_request(
                f"The path {path} of the adapter {name} does not exist, or has no {ADAPTER_CONFIG}.",
                hint="Pass the folder of the adapter, as PEFT writes it.",
                code=Code.PATH_NOT_FOUND,
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that the server may not read
        return False


def check_free(uid: str, adapters: Collection[str], routes: Mapping[str, Route], reserved: Collection[str]) -> None:
    """Refuse a launch whose uid or adapter names are in use.

    Raises:
        Problem: 409 ``model_uid_taken``.
    """
    others = {name: route for name, route in routes.items() if uid not in (name, route.parent)}
    for name in adapters:
        if name == uid:
            raise _conflict(f"The adapter {name} has the name of the model that it adapts.")
        if name in others or name in reserved:
            parent = others[name].parent if name in others else None
            owner = f"an adapter of {parent}" if parent else "a model"
            raise _conflict(f"The adapter's name {name} is taken by {owner}.")
    route = routes.get(uid)
    if route is not None and route.parent is not None:
        raise _conflict(f"The model UID {uid} is taken by an adapter of {route.parent}.")


def _conflict(cause: str) -> Problem:
    return Problem(Code.MODEL_UID_TAKEN, cause, hint="Choose another name, or terminate that model first.")
