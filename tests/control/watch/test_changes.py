"""The bounded list of changes, from which each follower reads at its own speed."""

from __future__ import annotations

import asyncio

from xinference.control.watch.changes import Changes


def test_a_follower_reads_what_came_after_its_number() -> None:
    changes = Changes(gather_seconds=0.0)
    for n in range(5):
        changes.add("models", "model", b"%d" % n)
    assert [change.event.split(b"data: ")[1] for change in changes.after(2) or ()] == [b"2\n\n", b"3\n\n", b"4\n\n"]
    assert changes.after(5) == []


def test_the_list_is_bounded_by_number_and_by_bytes() -> None:
    changes = Changes(kept=3, gather_seconds=0.0)
    for n in range(10):
        changes.add("models", "model", b"%d" % n)
    assert [change.number for change in changes.after(7) or ()] == [8, 9, 10]
    assert changes.after(6) is None
    large = Changes(kept_bytes=180, gather_seconds=0.0)
    for _ in range(10):
        large.add("models", "model", b"x" * 40)
    assert len(large.after(8) or ()) == 2 and large.after(7) is None
    large.add("models", "model", b"x" * 1000)  # the newest is kept, whatever its size
    assert len(large.after(10) or ()) == 1


def test_a_follower_takes_a_bounded_piece_at_once() -> None:
    changes = Changes(gather_seconds=0.0)
    for _ in range(10):
        changes.add("models", "model", b"x" * 40)
    assert [change.number for change in changes.after(0, limit=180) or ()] == [1, 2, 3]


def test_an_id_of_another_server_is_not_known() -> None:
    changes, others = Changes(), Changes()
    changes.add("models", "model", b"")
    assert changes.number_of(changes.id_of(1)) == 1
    for unknown in (others.id_of(0), changes.id_of(2), changes.id_of(-1), "", "x", changes.id_of(1) + "x", "-1"):
        assert changes.number_of(unknown) is None, unknown


async def test_all_that_wait_are_woken_by_a_change() -> None:
    changes = Changes(gather_seconds=0.0)
    for _ in range(3):
        waiting = [asyncio.create_task(changes.wait(changes.last, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        changes.add("models", "model", b"")
        async with asyncio.timeout(30):
            assert await asyncio.gather(*waiting) == [True] * 3
    assert await changes.wait(changes.last, 0.0) is False
    assert await changes.wait(0, 0.0) is True


async def test_changes_that_come_together_wake_those_that_wait_once() -> None:
    changes = Changes(gather_seconds=0.01)
    for number in (0, 3):
        waiting = asyncio.create_task(changes.wait(number, 60))
        await asyncio.sleep(0)
        for more in range(3):
            changes.add("models", "model", b"%d" % more)
            assert changes.after(number) == [], "it is too early"
        async with asyncio.timeout(30):
            assert await waiting
        assert len(changes.after(number) or ()) == 3


def test_more_changes_at_once_than_are_kept_are_no_defect() -> None:
    changes = Changes(kept=3, gather_seconds=1000.0)
    for n in range(10):
        changes.add("models", "model", b"%d" % n)
    assert changes.after(9) == [] and changes.after(1) is None
