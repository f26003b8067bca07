"""Further names of a deployment: unique, stored, and changed while it runs."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from tests.control.test_controller import add_row
from tests.control.test_uids import Ends, ends, request_, unnamed_of
from xinference.control.controller import Controller
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

__all__ = ["ends", "request_"]


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments without an owner task, which write their aliases all the same."""

    async def set_aliases(deployment: Deployment, aliases: tuple[str, ...]) -> None:
        await asyncio.sleep(0)
        deployment._record.set_aliases(aliases)

    monkeypatch.setattr(Deployment, "set_aliases", set_aliases)


def stored_aliases(store: Store) -> dict[str, list[str]]:
    return {row.uid: json.loads(row.request)["aliases"] for row in store.deployments()}


async def test_aliases_of_a_launch_are_routed_listed_and_stored(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(msgspec.structs.replace(request_, aliases=("gpt-4o", "claude")))
    route = controller.table.routes["gpt-4o"]
    assert route is controller.table.routes["m"] and controller.uid_of("gpt-4o") == "m"
    assert controller.running("m").description["aliases"] == ["gpt-4o", "claude"]
    assert stored_aliases(store) == {"m": ["gpt-4o", "claude"]}
    with pytest.raises(Problem, match="is an alias of m"):
        controller.deployment("gpt-4o")


async def test_the_next_server_has_them_too(controller: Controller, store: Store, ends: Ends) -> None:
    add_row(store, "m", aliases=("gpt-4o",))
    await controller.start()
    assert controller.table.routes["gpt-4o"].uid == "m"


async def test_the_same_launch_with_another_alias_adds_it(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(msgspec.structs.replace(request_, aliases=("a",)))
    again = await controller.launch(unnamed_of(request_, aliases=("b",)))
    assert again.uid == "m" and controller.running("m").plan.request.aliases == ("a", "b")


async def test_aliases_are_replaced_while_the_model_runs(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(msgspec.structs.replace(request_, aliases=("a",)))
    await controller.set_aliases("m", ["b", "b"])
    assert "a" not in controller.table.routes and controller.table.routes["b"].uid == "m"
    assert stored_aliases(store) == {"m": ["b"]}


async def test_a_name_is_that_of_one_deployment(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(msgspec.structs.replace(request_, aliases=("a",)))
    other = msgspec.structs.replace(request_, model_uid="other", request_limits=3)
    for refused in (
        msgspec.structs.replace(other, aliases=("a",)),
        msgspec.structs.replace(other, aliases=("m",)),
        msgspec.structs.replace(other, model_uid="a"),
    ):
        with pytest.raises(Problem, match="is taken by") as caught:
            await controller.launch(refused)
        assert caught.value.code == "model_uid_taken"
    assert [row.uid for row in store.deployments()] == ["m"]
    unnamed = unnamed_of(other)
    await controller.set_aliases("m", ["llama-2-chat"])
    assert (await controller.launch(unnamed)).uid.startswith("llama-2-chat-")


async def test_of_two_deployments_that_get_one_alias_at_one_moment_one_is_refused(
    controller: Controller, ends: Ends, request_: LaunchRequest
) -> None:
    await controller.launch(request_)
    await controller.launch(msgspec.structs.replace(request_, model_uid="n", request_limits=3))
    results = await asyncio.gather(
        controller.set_aliases("m", ["x"]), controller.set_aliases("n", ["x"]), return_exceptions=True
    )
    assert [isinstance(result, Problem) for result in results] == [False, True]
    assert controller.table.routes["x"].uid == "m"


async def test_of_two_launches_with_one_alias_at_one_moment_one_is_refused(
    controller: Controller, store: Store, ends: Ends, request_: LaunchRequest
) -> None:
    one = msgspec.structs.replace(request_, aliases=("x",))
    two = msgspec.structs.replace(one, model_uid="n", request_limits=3)
    results = await asyncio.gather(controller.launch(one), controller.launch(two), return_exceptions=True)
    assert sorted(isinstance(result, Problem) for result in results) == [False, True]
    assert len(store.deployments()) == len(controller.deployments()) == 1
