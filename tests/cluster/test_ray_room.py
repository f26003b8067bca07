"""What launches without room want of Ray's autoscaler, how many nodes, and when the want ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Site
from xinference.cluster import ray_room
from xinference.cluster.ray_room import ASK_SECONDS, RayRoom, want_of
from xinference.fabric.ray_messages import Want
from xinference.launch.request import LaunchRequest
from xinference.nodes.membership import NodeState

REQUEST = LaunchRequest(model_name="qwen", replica=3)


class Scene:
    """A room whose clock and whose usable nodes the test sets."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ready, self.reserved = 0.0, set[str](), set[str]()
        self.room = RayRoom(site.cluster.members, 600, lambda: self.reserved, lambda: self.now)
        monkeypatch.setattr(self.room, "_usable", lambda: frozenset(self.ready))


@pytest.fixture
def scene(site: Site, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(site, monkeypatch)


@pytest.mark.parametrize(
    ("fields", "has_gpus", "gpus"),
    [
        ({}, False, 0),
        ({}, True, 1),
        ({"n_gpu": None}, True, 0),
        ({"n_gpu": 2}, False, 2),
        ({"gpu_idx": (0, 1, 2)}, False, 3),
    ],
)
def test_a_want_has_the_gpus_of_the_launch(fields: dict[str, Any], has_gpus: bool, gpus: int) -> None:
    request = LaunchRequest(model_name="qwen", **fields)
    assert want_of("qwen", request, 1, has_gpus=has_gpus) == Want("qwen", gpus, 1.0, 1)


def test_one_more_node_is_wanted_when_one_has_come_and_was_not_enough(scene: Scene) -> None:
    scene.room.ask("qwen", REQUEST)
    scene.room.ask("qwen", REQUEST)
    assert scene.room.wants() == (Want("qwen", 0, 1.0, 1),)
    for number in range(5):
        scene.ready.add(f"n{number}")
        scene.room.ask("qwen", REQUEST)
    assert scene.room.wants() == (Want("qwen", 0, 1.0, 3),), "at most a node for each replica"


def test_a_want_ends_when_nobody_asks_any_more(scene: Scene) -> None:
    scene.room.ask("qwen", REQUEST)
    scene.now = ASK_SECONDS - 1
    assert scene.room.wants()
    scene.now = ASK_SECONDS
    assert scene.room.wants() == ()


def test_a_launch_with_room_keeps_its_node_until_its_memory_is_reserved(scene: Scene) -> None:
    scene.room.keep("unasked", "x")
    scene.room.ask("qwen", REQUEST)
    scene.room.keep("qwen", "qwen-1")
    scene.now = 500.0
    assert scene.room.wants(), "its weights are fetched"
    scene.reserved.add("qwen-1")
    assert scene.room.wants() == ()


def test_a_launch_that_was_given_up_wants_nothing(scene: Scene) -> None:
    scene.room.ask("qwen", REQUEST)
    scene.room.end("qwen")
    assert scene.room.wants() == ()


async def test_a_launch_waits_for_a_node_that_was_not_there(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_room, "LOOK_SECONDS", 0)
    scene.ready.add("n1")
    scene.room.ask("qwen", REQUEST)
    clock = iter([0.0, 1.0, 1.0, 2.0, 2.0, 700.0])
    monkeypatch.setattr(scene.room, "_clock", lambda: next(clock, 700.0))
    assert not await scene.room.wait_for_node("qwen", 600)
    scene.ready.add("n2")
    monkeypatch.setattr(scene.room, "_clock", lambda: 0.0)
    assert await scene.room.wait_for_node("qwen", 600)


async def test_only_a_node_that_takes_replicas_is_usable(site: Site, tmp_path: Path) -> None:
    room = RayRoom(site.cluster.members, 600, set)
    machine = site.machine()
    node_id = await machine.join()
    assert site.cluster.members.state_of(site.cluster.members.get(node_id)) is NodeState.UNREACHABLE
    assert room._usable() == frozenset()
