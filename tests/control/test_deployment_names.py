"""A name belongs to one deployment: uids, aliases and adapters, also those that are being given."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.control.parts import Parts
from tests.deployments.doubles import launch_of
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest


def unnamed() -> LaunchRequest:
    return msgspec.structs.replace(launch_of("x").request, model_uid=None)


async def test_a_launch_without_a_uid_gets_the_models_name_and_then_another(parts: Parts) -> None:
    request = unnamed()
    assert parts.names.uid_for(request) == "llama-2-chat"
    async with parts.names.reserved_uids.hold("llama-2-chat"):
        assert parts.names.uid_for(request).startswith("llama-2-chat-")
    parts.add("llama-2-chat")
    assert parts.names.uid_for(request).startswith("llama-2-chat-")


async def test_the_uid_of_a_deployment_that_ends_is_free(parts: Parts, begun: list[Deployment]) -> None:
    request = unnamed()
    ending = parts.terminations.begin(parts.add("llama-2-chat"))
    assert parts.names.uid_for(request) == "llama-2-chat"
    await ending


@pytest.mark.parametrize("fields", [{"aliases": ("a",)}, {"aliases": ("m",)}])
async def test_the_names_of_another_deployment_are_refused(parts: Parts, fields: dict[str, Any]) -> None:
    parts.add("m", aliases=("a",))
    with pytest.raises(Problem, match="is taken by") as refused:
        await parts.names.check(launch_of("n", **fields))
    assert refused.value.code == "model_uid_taken"


async def test_an_alias_that_is_being_given_is_taken(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.add("m")
    given, go_on = asyncio.Event(), asyncio.Event()

    async def set_aliases(deployment: Deployment, aliases: tuple[str, ...]) -> None:
        given.set()
        await go_on.wait()

    monkeypatch.setattr(Deployment, "set_aliases", set_aliases)
    giving = asyncio.create_task(parts.names.set_aliases("m", ["a"]))
    await given.wait()
    for launch in (launch_of("a"), launch_of("n", aliases=("a",))):
        with pytest.raises(Problem) as refused:
            parts.names.check_free(launch)
        assert refused.value.code == "model_uid_taken"
    go_on.set()
    await giving
    parts.names.check_free(launch_of("a"))


async def test_a_repeated_launch_adds_only_the_aliases_that_are_new(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.add("m", aliases=("a",))
    given: list[tuple[str, ...]] = []

    async def set_aliases(deployment: Deployment, aliases: tuple[str, ...]) -> None:
        given.append(aliases)

    monkeypatch.setattr(Deployment, "set_aliases", set_aliases)
    await parts.names.add_aliases("m", ["a"])
    await parts.names.add_aliases("m", ["b", "a"])
    assert given == [("a", "b")]
