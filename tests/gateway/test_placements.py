"""The gateway's part in sharing beginnings: what reaches an engine, and when the states of a model are deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.routing.routes import route
from xinference.config import Settings
from xinference.engines.llama_cpp.model_states import LlamaCppStates
from xinference.files import state_folders
from xinference.gateway.http.engine_pool import EnginePool
from xinference.gateway.placements import Placements
from xinference.routing.table import Route, Target

TARGET = Target("r0", "http://127.0.0.1:9", "key")
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
PATH = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def in_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(state_folders, "IN_MEMORY", tmp_path)


def placements(home: Path, routes: dict[str, Route] | None = None, **settings: Any) -> Placements:
    given = Settings(home=home, **{"shared_beginnings": True, **settings})
    known = {"m": shared()} if routes is None else routes
    return Placements(given, EnginePool(), lambda: known)


def shared(**changes: Any) -> Route:
    return route(TARGET, uid="m", engine="llama.cpp", slots=4, state_bytes=1 << 20, **changes)


async def slot_of(found: Placements, route: Route, target: Target = TARGET) -> int | None:
    placed = await found.place(PATH, BODY, "", route, target)
    return None if placed is None else int(json.loads(placed.body)["id_slot"])


async def test_a_request_gets_a_slot_and_the_folders_are_private(tmp_path: Path) -> None:
    found = placements(tmp_path / "home")
    assert await slot_of(found, shared()) == 0
    assert await slot_of(found, shared()) == 1
    for folder in (
        state_folders.memory_folder(tmp_path / "home", "m"),
        state_folders.disk_folder(tmp_path / "home", "m"),
    ):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent.stat().st_mode & 0o777 == 0o700


async def test_nothing_is_placed_without_a_state_folder_for_the_engine(tmp_path: Path) -> None:
    away = Target("r1", "https://other:1/r/r1", "", server_name="node")
    assert not placements(tmp_path, shared_beginnings=False).is_on
    assert not placements(tmp_path, gateway_workers=2).is_on
    assert await slot_of(placements(tmp_path), shared(), away) is None
    vllm = route(TARGET, uid="v", engine="vLLM", slots=4, state_bytes=1)
    assert await slot_of(placements(tmp_path), vllm) is None


async def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    memory = state_folders.memory_folder(tmp_path, "m")
    memory.parent.mkdir(mode=0o700)
    memory.symlink_to(tmp_path)
    assert await slot_of(placements(tmp_path), shared()) is None


async def test_files_of_an_earlier_server_in_memory_are_deleted(tmp_path: Path) -> None:
    memory = state_folders.prepare(tmp_path, "m", "weights")
    (memory / "old.state").write_bytes(b"x")
    await slot_of(placements(tmp_path), shared())
    assert [path.name for path in memory.iterdir()] == [state_folders.STAMP]


async def test_each_replica_brings_its_planned_memory(tmp_path: Path) -> None:
    second = Target("r1", "http://127.0.0.1:8", "key")
    found = placements(tmp_path, {"m": replace(shared(), targets=(TARGET, second))})
    for target in (TARGET, second):
        await slot_of(found, shared(), target)
    states = found._models["m"]
    assert isinstance(states, LlamaCppStates)
    assert states.saved.maximum == 2 << 20
    found.forget("r1")
    found._release("m")
    assert states.saved.maximum == 1 << 20


async def test_a_request_that_comes_too_late_for_a_stopped_replica_brings_no_memory(tmp_path: Path) -> None:
    second = Target("r1", "http://127.0.0.1:8", "key")
    routes = {"m": shared()}
    found = placements(tmp_path, routes)
    late = routes["m"]
    assert await slot_of(found, late) == 0
    routes["m"] = replace(shared(), targets=(second,))
    found.forget("r0")
    assert await slot_of(found, late) is None
    assert await slot_of(found, routes["m"], second) == 0
    states = found._models["m"]
    assert isinstance(states, LlamaCppStates)
    assert states.saved.maximum == 1 << 20


async def test_the_states_of_a_model_that_is_gone_are_deleted(tmp_path: Path) -> None:
    routes = {"m": shared()}
    found = placements(tmp_path, routes)
    await slot_of(found, shared())
    found._release("m")
    assert state_folders.disk_folder(tmp_path, "m").exists()
    del routes["m"]
    routes["other"] = shared()
    found._release("m")
    assert not state_folders.disk_folder(tmp_path, "m").exists()
    assert await found.metrics() == []


def test_states_of_other_weights_are_deleted_at_the_start(tmp_path: Path) -> None:
    memory = state_folders.prepare(tmp_path, "m", "weights")
    (memory / "a.state").write_bytes(b"x")
    disk = state_folders.disk_folder(tmp_path, "m")
    (disk / "a.state").write_bytes(b"x")
    assert state_folders.prepare(tmp_path, "m", "weights") == memory
    assert (memory / "a.state").exists()
    state_folders.prepare(tmp_path, "m", "other weights")
    assert not (memory / "a.state").exists()
    assert not (disk / "a.state").exists()
