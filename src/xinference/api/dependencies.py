"""The dependencies of routes, as annotated types, and the application state that they read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from xinference.api.rate_answers import RateAnswers
from xinference.api.replica_nodes import names_of
from xinference.api.request_log import RequestLog
from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.devices import DeviceReader
from xinference.control.engine_metrics import EngineScraper
from xinference.control.watch.server_watch import server_watch
from xinference.control.watch.watch import Watch
from xinference.control.worker_devices import read_workers
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files import state_folders
from xinference.hubs.disk_folders import disk_folders
from xinference.keys.key import Key
from xinference.keys.keyring import Keyring
from xinference.keys.visibility import key_of, manages
from xinference.launch.match import match
from xinference.launch.name_tag import without_tag
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
    requests: RequestLog,
    stop: Stop,
    started: float,
) -> None:
    """Set the state that the dependencies read. `started` is `time.monotonic` at the server's start."""
    app.state.controller = controller
    app.state.engine_scraper = EngineScraper(lambda: controller.table)
    app.state.settings = settings
    app.state.keys = keys
    app.state.running = running
    app.state.requests = requests
    app.state.rate_answers = RateAnswers()
    app.state.devices = DeviceReader(
        controller.deployments,
        tuple(disk_folders(settings).items()),
        state_bytes=partial(state_folders.used_bytes, settings.home),
        workers=_workers_of(controller),
    )
    app.state.watch = server_watch(
        controller,
        requests.hub,
        requests.running,
        requests.sampler,
        keys,
        app.state.devices,
        partial(names_of, controller),
    )
    app.state.stop = stop
    app.state.started = started


def _workers_of(controller: Controller) -> Callable[[], Awaitable[list[dict[str, Any]]]] | None:
    """Reads the machines of the workers; None: there is no cluster."""
    cluster = controller.cluster
    if cluster is None:
        return None
    return lambda: read_workers(cluster.members, controller.deployments(), time.time())


def _state(name: str) -> Callable[[Request], Awaitable[Any]]:
    """A dependency that reads one name of the application's state."""

    async def read(request: Request) -> Any:  # FastAPI would call a plain function in a thread
        return getattr(request.app.state, name)

    return read


async def _key(request: Request) -> Key | None:
    return key_of(request.scope)


ControllerDep = Annotated[Controller, Depends(_state("controller"))]
EngineScraperDep = Annotated[EngineScraper, Depends(_state("engine_scraper"))]
SettingsDep = Annotated[Settings, Depends(_state("settings"))]
KeyringDep = Annotated[Keyring, Depends(_state("keys"))]
AbortablesDep = Annotated[Abortables, Depends(_state("running"))]
RequestLogDep = Annotated[RequestLog, Depends(_state("requests"))]
RateAnswersDep = Annotated[RateAnswers, Depends(_state("rate_answers"))]
DevicesDep = Annotated[DeviceReader, Depends(_state("devices"))]
WatchDep = Annotated[Watch, Depends(_state("watch"))]
#: Makes the server stop its engines and exit after the answer is sent.
StopDep = Annotated[Stop, Depends(_state("stop"))]
#: `time.monotonic` at the server's start.
StartedDep = Annotated[float, Depends(_state("started"))]
#: The key of the request; None if no key is required.
KeyDep = Annotated[Key | None, Depends(_key)]


async def _address(settings: SettingsDep) -> str:
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


#: The address that this server listens on: ``host:port``.
AddressDep = Annotated[str, Depends(_address)]


def visible_families(controller: Controller, key: Key | None) -> Mapping[str, ModelFamily]:
    """The families that the holder of `key` may know of.

    Of the registered models, a key of certain models sees those that it names and those whose deployments it names.
    """
    if key is None or key.models is None or manages(key):
        return controller.families
    return {name: family for name, family in controller.families.items() if _is_visible(controller, key, name)}


def _is_visible(controller: Controller, key: Key, family: str) -> bool:
    if controller.registrations.find(family) is None:
        return True  # built in, and so public
    return any(key.may_ask(name) for name in (family, *controller.uids_of_family(family)))


def find_family(families: Mapping[str, ModelFamily], model_name: str, model_type: str | None = None) -> ModelFamily:
    """One of `families` by its name, in any case; with `model_type` only one of that type.

    Raises:
        Problem: 404 with similar names; 400 if there is no such type.
    """
    if model_type is not None:
        normalized = model_type_of(model_type)
        families = {name: family for name, family in families.items() if family.model_type == normalized}
    try:
        return match(families, without_tag(LaunchRequest(model_name=model_name), families)).family
    except Problem as problem:
        raise problem.replace(code=Code.MODEL_NOT_FOUND) from None
