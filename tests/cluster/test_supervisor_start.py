"""The start of a supervisor with stored models."""

from __future__ import annotations

from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.store.database import Store


@pytest.mark.parametrize("has_models", [True, False])
async def test_stored_models_are_planned_after_the_workers_have_connected(tmp_path: Path, has_models: bool) -> None:
    settings = Settings(home=tmp_path, cluster=True, no_models=True, supervisor_port=0)
    settings.make_home()
    store, steps = Store(tmp_path / "x.db"), list[str]()
    if has_models:
        store.add_deployment("one", "{}")
    controller = Controller(settings, store)
    assert controller.cluster is not None

    async def wait_for_nodes() -> None:
        steps.append("nodes")

    async def restore() -> None:
        steps.append("models")

    controller.cluster.wait_for_nodes = wait_for_nodes  # type: ignore[method-assign]  # only this controller's
    controller._restoration.restore = restore  # type: ignore[method-assign]  # only this controller's
    await controller.start()
    await controller.close("detach")
    store.close()
    assert steps == (["nodes", "models"] if has_models else ["models"])
