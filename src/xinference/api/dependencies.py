"""What routes need of the application."""

from __future__ import annotations

from fastapi import Request

from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.errors import Problem
from xinference.keys.keyring import Keyring
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest


def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


def address_of(request: Request) -> str:
    """Where this server listens: ``host:port``."""
    settings: Settings = request.app.state.settings
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def family_of(request: Request, model_name: str, model_type: str | None = None) -> ModelFamily:
    """A family by its name, whatever the case; with `model_type` only one of that type.

    Raises:
        Problem: 404, with the near ones; 400, there is no such type.
    """
    known = controller_of(request).families
    if model_type is not None:
        wanted = model_type_of(model_type)
        known = {name: family for name, family in known.items() if family.model_type == wanted}
    try:
        return match(known, LaunchRequest(model_name=model_name)).family
    except Problem as problem:
        raise Problem(problem.code, 404, problem.cause, hint=problem.hint) from None


def keyring_of(request: Request) -> Keyring:
    keys: Keyring = request.app.state.keys
    return keys
