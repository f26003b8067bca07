"""The order of requests that wait for a slot."""

from __future__ import annotations

import asyncio

from xinference.engines.llama_cpp.slot_turns import MAX_PASSED, SlotTurns


def futures(count: int) -> list[asyncio.Future[None]]:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def test_a_higher_priority_is_first_and_equal_ones_keep_their_order() -> None:
    turns, (low, one, two, high) = SlotTurns(), futures(4)
    for future, priority in ((low, 2), (one, 1), (two, 1), (high, 0)):
        turns.add(future, priority)
    assert [turns.take() for _ in range(4)] == [high, one, two, low]


async def test_a_request_is_passed_by_a_bounded_number_of_others() -> None:
    turns, (low,), high = SlotTurns(), futures(1), futures(2 * MAX_PASSED)
    turns.add(low, 2)
    for future in high:
        turns.add(future, 0)
    order = [turns.take() for _ in range(len(turns))]
    assert order.index(low) == MAX_PASSED
    assert [future for future in order if future is not low] == high


async def test_a_request_that_has_left_has_no_turn() -> None:
    turns, (one, two) = SlotTurns(), futures(2)
    turns.add(one, 1)
    turns.add_first(two, 1)
    turns.remove(two)
    turns.remove(two)
    assert turns.take() is one
    assert not len(turns)
