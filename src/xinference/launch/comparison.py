"""Compares launch requests: whether two launches are the same model, and what differs between them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from xinference.launch.request import LaunchRequest

#: Fields that do not decide which model runs and how: names of the deployment, and the text of the original request.
_NAMES = frozenset({"model_uid", "aliases", "asked_name", "asked", "applied_from"})


def asked_fields(request: LaunchRequest) -> dict[str, Any]:
    """The fields of a request, as it was sent, that are not their defaults, except its uid."""
    default = LaunchRequest(model_name="")
    values = msgspec.json.decode(msgspec.json.encode(request))  # equal to the stored ones, which are JSON
    same = {name for name in values if name != "model_name" and getattr(request, name) == getattr(default, name)}
    return {name: value for name, value in values.items() if name not in same | _NAMES}


def is_same_launch(draft: LaunchRequest, running: LaunchRequest) -> bool:
    """Whether a drafted request launches the model of a running one.

    It does if both were sent with the same fields, or if all their fields are equal after the choices of the draft. The
    first matters where a choice depends on the state of the machine, or the running model has other replicas by now.
    """
    return (bool(draft.asked) and draft.asked == running.asked) or not differing_fields(draft, running)


def differences(draft: LaunchRequest, running: LaunchRequest) -> list[str]:
    """Each field that differs, with both values; options by their names.

    Such as ``n_ctx: 4096, and 8191 in this launch``.
    """
    texts = []
    for name in differing_fields(draft, running):
        here, asked = getattr(running, name), getattr(draft, name)
        if name == "options":
            texts += [_difference(key, here.get(key), asked.get(key)) for key in _differing_keys(here, asked)]
        elif name == "envs":
            texts.append(f"envs: other values of {', '.join(_differing_keys(here, asked))}")
        elif name == "family":
            texts.append("model_name: another definition of the model")
        else:
            texts.append(_difference(name, here, asked))
    return texts


def differing_fields(draft: LaunchRequest, running: LaunchRequest) -> list[str]:
    """The names of the fields that differ. A draft without a hub matches any hub."""
    names = [name for name in LaunchRequest.__struct_fields__ if name not in _NAMES]
    if draft.model_path is None and draft.download_hub is None:
        names.remove("download_hub")
    return [name for name in names if getattr(draft, name) != getattr(running, name)]


def _differing_keys(here: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*here, *asked]) if here.get(key) != asked.get(key)]


def _difference(name: str, here: object, asked: object) -> str:
    return f"{name}: {_shown(here)}, and {_shown(asked)} in this launch"


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value))
