"""Checks the names of models in requests: a deployment's uid, and the names of its LoRA adapters."""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Mapping
from pathlib import Path

from xinference.catalog.registry import MODEL_NAME
from xinference.engines.listings import LISTINGS
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.launch.request import LaunchRequest
from xinference.routing.table import Route, owner_of
from xinference.weights.adapter_files import CONFIG as ADAPTER_CONFIG
from xinference.weights.adapter_files import check_adapter_files

MAX_UID_LENGTH = 100
SUFFIX_LENGTH = 8
MAX_ALIASES = 32
FORM = f"Use 1 to {MAX_UID_LENGTH} characters, without a space or any of + / ? % # & =."
#: The last part of a route where others have a uid; a test holds these to the routes.
PATH_NAMES = frozenset(
    {"instances", "prompts", "families", *(listing.path.removeprefix("/v1/models/") for listing in LISTINGS)}
)
_RANDOM = string.ascii_lowercase + string.digits


def is_valid(name: str) -> bool:
    """Whether requests can use this name."""
    return 0 < len(name) <= MAX_UID_LENGTH and MODEL_NAME.fullmatch(name) is not None


def uid_for(request: LaunchRequest, taken: Collection[str], reserved: Collection[str], *, is_copy: bool = False) -> str:
    """The uid of a launch: the requested one, or else the model's name, with a random suffix if it is taken.

    `is_copy`: the requested uid gets a suffix, too, if it is taken.

    Raises:
        Problem: 400, the uid is invalid.
    """
    uid = name = request.model_name.strip()
    if request.model_uid is not None:
        uid = request.model_uid.strip()
        if not is_valid(uid):
            raise bad_request(f"The model UID {request.model_uid!r} is invalid.", hint=FORM)
        if uid in PATH_NAMES:
            cause = f"The model UID {uid!r} is the name of a route, GET /v1/models/{uid}."
            raise bad_request(cause, hint="Choose another name.")
        if not is_copy:
            return uid
        name = uid[: MAX_UID_LENGTH - SUFFIX_LENGTH - 1]
    while uid in taken or uid in reserved or uid in PATH_NAMES:
        uid = f"{name}-{''.join(secrets.choice(_RANDOM) for _ in range(SUFFIX_LENGTH))}"
    return uid


def check_adapters(model_type: str, modules: Mapping[str, str]) -> None:
    """Refuse adapters that can't be loaded; blocks, because it reads the disk.

    Raises:
        Problem: 400, names the adapter or the path.
    """
    if modules and model_type != "LLM":
        raise bad_request(f"LoRA adapters require an LLM, and this model's type is {model_type}.")
    for name, path in modules.items():
        if not is_valid(name) or name in PATH_NAMES:
            raise bad_request(f"The adapter's name {name!r} is invalid.", hint=FORM)
        # The same problem whether a file exists or not: the path may be one of the server's own files.
        if not _is_file(Path(path) / ADAPTER_CONFIG):
            raise bad_request(
                f"The path {path} of the adapter {name} does not exist, or has no {ADAPTER_CONFIG}.",
                hint="Pass the folder of the adapter, as PEFT writes it.",
                code=Code.PATH_NOT_FOUND,
            )
        check_adapter_files(name, Path(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that the server may not read
        return False


def check_aliases(uid: str, aliases: Collection[str], routes: Mapping[str, Route], reserved: Collection[str]) -> None:
    """Refuse aliases that requests cannot use, or that are in use.

    Raises:
        Problem: 400, an alias is invalid; 409 ``model_uid_taken``.
    """
    if len(aliases) > MAX_ALIASES:
        raise bad_request(f"A model has at most {MAX_ALIASES} aliases, and there are {len(aliases)}.")
    for alias in aliases:
        if not is_valid(alias) or alias in PATH_NAMES:
            raise bad_request(f"The alias {alias!r} is invalid.", hint=FORM)
        if alias == uid:
            raise bad_request(f"The alias {alias} is the model's own uid.", hint="Leave it out.")
        route = routes.get(alias)
        if route is not None and route.uid == uid and route.parent is None:
            continue
        if route is not None or alias in reserved:
            raise _conflict(f"The alias {alias} is taken by {_owner(alias, route)}.")


def _owner(name: str, route: Route | None) -> str:
    """What has a name."""
    owner = owner_of(name, route) if route else None
    if route is None or owner is None:
        return "a model"
    return f"an adapter of {owner}" if route.parent else f"an alias of {owner}"


def check_free(uid: str, adapters: Collection[str], routes: Mapping[str, Route], reserved: Collection[str]) -> None:
    """Refuse a launch whose uid or adapter names are in use.

    Raises:
        Problem: 409 ``model_uid_taken``.
    """
    others = {name: route for name, route in routes.items() if uid not in (name, route.uid, route.parent)}
    for name in adapters:
        if name == uid:
            raise _conflict(f"The adapter {name} has the name of the model that it adapts.")
        if name in others or name in reserved:
            raise _conflict(f"The adapter's name {name} is taken by {_owner(name, others.get(name))}.")
    route = routes.get(uid)
    if route is not None and owner_of(uid, route) is not None:
        raise _conflict(f"The model UID {uid} is taken by {_owner(uid, route)}.")


def _conflict(cause: str) -> Problem:
    return Problem(Code.MODEL_UID_TAKEN, cause, hint="Choose another name, or terminate that model first.")
