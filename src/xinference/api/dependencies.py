"""The dependencies of routes, as annotated types, and the application state that they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.key import Key
from xinference.keys.keyring import Keyring
from xinference.keys.visibility import key_of
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.routing.abortable_requests import Abortables

Stop = Callable[[], None]


def provide(
    app: FastAPI,
    *,
    controller: Controller,
    settings: Settings,
    keys: Keyring,
    running: Abortables,
    stop: Stop,
    started: float,
) -> None:
    """Set the state that the dependencies read. `started` is `time.monotonic` at the server's start."""
    app.state.controller = controller
    app.state.settings = settings
    app.state.keys = keys
    app.state.running = running
    app.state.stop = stop
    app.state.started = started


# They are coroutines because FastAPI calls a plain function in a thread.


async def _controller(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _keyring(request: Request) -> Keyring:
    keys: Keyring = request.app.state.keys
    return keys


async def _abortables(request: Request) -> Abortables:
    running: Abortables = request.app.state.running
    return running


async def _stop(request: Request) -> Stop:
    stop: Stop = request.app.state.stop
    return stop


async def _started(request: Request) -> float:
    started: float = request.app.state.started
    return started


async def _key(request: Request) -> Key | None:
    return key_of(request.scope)


ControllerDep = Annotated[Controller, Depends(_controller)]
SettingsDep = Annotated[Settings, Depends(_settings)]
KeyringDep = Annotated[Keyring, Depends(_keyring)]
AbortablesDep = Annotated[Abortables, Depends(_abortables)]
#: Asks the server to stop its engines and itself after the answer is sent.
StopDep = Annotated[Stop, Depends(_stop)]
#: `time.monotonic` at the server's start.
StartedDep = Annotated[float, Depends(_started)]
#: The key of the request; None if it needed none.
KeyDep = Annotated[Key | None, Depends(_key)]


async def _address(settings: SettingsDep) -> str:
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


#: The address that this server listens on: ``host:port``.
AddressDep = Annotated[str, Depends(_address)]


def find_family(controller: Controller, model_name: str, model_type: str | None = None) -> ModelFamily:
    """A family by its name, in any case; with `model_type` only one of that type.

    Raises:
        Problem: 404 with similar names; 400 if there is no such type.
    """
    families = controller.families
    if model_type is not None:
        normalized = model_type_of(model_type)
        families = {name: family for name, family in families.items() if family.model_type == normalized}
    try:
        return match(families, LaunchRequest(model_name=model_name)).family
    except Problem as problem:
        raise problem.replace(code=Code.MODEL_NOT_FOUND) from None
