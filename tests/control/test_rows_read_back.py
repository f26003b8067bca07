"""A stored launch is checked before its engine starts: its row may be older than a rule, or edited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.formats.gguf_writer import Gguf
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    settings = Settings(home=tmp_path / "home", offline=True)
    store = Store(settings.home / "x.db")
    controller = Controller(settings, store)
    yield controller
    await controller.close("stop")
    store.close()


@pytest.mark.process
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"envs": {"LD_PRELOAD": "/tmp/e.so"}}, "LD_PRELOAD"),
        ({"envs": {"OPENSSL_CONF": "/tmp/e.cnf"}}, "OPENSSL_CONF"),
        ({"envs": {"OMP_NUM_THREADS": "/tmp/x"}}, "OMP_NUM_THREADS"),
        ({"options": {"video_ffmpeg_bin_dir": "/tmp"}}, "--video_ffmpeg_bin_dir"),
        ({"options": {"path_prompts_log_dir": "/tmp"}}, "--path_prompts_log_dir"),
        ({"options": {"mmproj.url": "http://127.0.0.1/x"}}, "--mmproj.url"),
    ],
)
async def test_a_stored_launch_that_breaks_a_rule_is_shown_and_not_started(
    controller: Controller, tmp_path: Path, fields: dict[str, Any], name: str
) -> None:
    weights = Gguf().write(tmp_path / "m.gguf")
    request = LaunchRequest(
        model_name="smollm2-instruct",
        model_engine="llama.cpp",
        model_format="ggufv2",
        quantization="Q4_1",
        model_path=str(weights),
        **fields,
    )
    controller._store.add_deployment("mine", msgspec.json.encode(request).decode())
    await controller.start()
    restored = controller.deployment("mine")
    assert isinstance(restored, BrokenDeployment) and restored.instance["status"] == "ERROR"
    assert name in restored.problem.cause and restored.problem.status == 400
    assert controller._store.replicas("mine") == []
    await controller.terminate("mine")
    assert controller._store.deployments() == []


DEEP = '{"a":' * 5000


@pytest.mark.parametrize("stored", [DEEP, "[1", "null", "\u00e9"])
async def test_a_damaged_request_is_shown_as_one_in_whichever_way_it_is_damaged(
    controller: Controller, stored: str
) -> None:
    controller._store.add_deployment("mine", stored)
    await controller.start()
    restored = controller.deployment("mine")
    assert isinstance(restored, BrokenDeployment) and restored.problem.code == "unreadable_row"


@pytest.mark.parametrize("uid", ["", "\0", "../x", "a/b", "x" * 101])
async def test_a_stored_uid_that_no_launch_may_have_is_shown_and_not_started(controller: Controller, uid: str) -> None:
    controller._store.add_deployment(uid, msgspec.json.encode(LaunchRequest(model_name="smollm2-instruct")).decode())
    await controller.start()
    restored = controller.deployment(uid)
    assert isinstance(restored, BrokenDeployment) and restored.problem.code == "unreadable_row"
    assert repr(uid) in restored.problem.cause
