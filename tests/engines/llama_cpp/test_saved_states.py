"""Which saved states leave memory for others."""

from __future__ import annotations

import random

from xinference.engines.llama_cpp.prompt_beginnings import Prompt
from xinference.engines.llama_cpp.saved_states import SavedState, SavedStates


def add(states: SavedStates, name: str, size: int) -> SavedState:
    state = SavedState(name, Prompt({name.encode(): size}), size)
    states.add(state)
    return state


def test_states_without_a_use_leave_first_then_those_of_the_oldest_use() -> None:
    states = SavedStates(100)
    old, used, new = (add(states, name, 30) for name in ("old", "used", "new"))
    for state in (used, old):
        states.touch(state)
    assert states.make_room(40) == ["new"]
    assert states.make_room(70) == ["used"]
    assert new.in_memory is False


def test_a_state_that_is_read_stays() -> None:
    states = SavedStates(50)
    state = add(states, "read", 40)
    states.begin_use(state)
    assert states.make_room(20) is None
    assert states.set_maximum(10) == []
    states.end_use(state)
    assert states.set_maximum(10) == ["read"]


def test_memory_never_exceeds_its_maximum() -> None:
    random_ = random.Random(1)
    states = SavedStates(1000)
    for n in range(2000):
        size = random_.randrange(1, 1200)
        if states.make_room(size) is not None:
            add(states, str(n), size)
        if random_.random() < 0.1:
            states.set_maximum(random_.randrange(200, 1000))
        for state in random_.sample(list(states.all()), min(3, len(states))):
            states.touch(state)
        assert states.memory_bytes <= states.maximum
