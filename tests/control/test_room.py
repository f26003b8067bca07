"""A launch without room: it asks for a node, is tried again when one has come, and gives up after its time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from xinference.control.room import launch_with_room
from xinference.control.same_launch import Launched
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest

REQUEST = LaunchRequest(model_name="qwen", model_uid="big")


@dataclass
class Room:
    """Nodes that come as the test says."""

    coming: list[bool]
    seconds: float = 60.0
    done: list[str] = field(default_factory=list)

    def ask(self, name: str, request: LaunchRequest) -> None:
        self.done.append(f"ask {name}")

    async def wait_for_node(self, name: str, seconds: float) -> bool:
        self.done.append(f"wait {seconds:g}")
        return self.coming.pop(0)

    def keep(self, name: str, uid: str) -> None:
        self.done.append(f"keep {name} for {uid}")

    def end(self, name: str) -> None:
        self.done.append(f"end {name}")


async def _launch(room: Room, *results: Code | Launched, times: tuple[float, ...] = (0, 0, 0, 0, 0, 0)) -> Launched:
    left, clock = list(results), iter(times)

    async def attempt() -> Launched:
        result = left.pop(0)
        if isinstance(result, Launched):
            return result
        raise Problem(result, "no room")

    return await launch_with_room(attempt, REQUEST, room, lambda: next(clock))


async def test_a_launch_with_room_asks_for_nothing() -> None:
    room = Room([])
    assert (await _launch(room, Launched("big"))).uid == "big"
    assert room.done == ["keep big for big"]


@pytest.mark.parametrize("code", [Code.DOES_NOT_FIT, Code.NO_NODE, Code.NO_SUCH_DEVICE])
async def test_a_launch_without_room_is_tried_again_when_a_node_has_come(code: Code) -> None:
    room = Room([True, True])
    assert (await _launch(room, code, code, Launched("big"))).uid == "big"
    assert room.done == ["ask big", "wait 60", "ask big", "wait 60", "keep big for big"]


async def test_a_launch_for_which_no_node_comes_is_refused_with_its_reason() -> None:
    room = Room([False])
    with pytest.raises(Problem, match="no room"):
        await _launch(room, Code.DOES_NOT_FIT)
    assert room.done == ["ask big", "wait 60", "end big"]


async def test_a_launch_waits_no_longer_than_its_time_in_all() -> None:
    room = Room([True])
    with pytest.raises(Problem):
        await _launch(room, Code.DOES_NOT_FIT, Code.DOES_NOT_FIT, times=(0, 10, 10, 61))
    assert room.done == ["ask big", "wait 50", "end big"]


async def test_a_launch_that_no_node_can_cure_is_refused_at_once() -> None:
    room = Room([])
    with pytest.raises(Problem):
        await _launch(room, Code.MODEL_NOT_FOUND)
    assert room.done == ["end big"]
