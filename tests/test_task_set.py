"""The tasks of an object end with it."""

from __future__ import annotations

import asyncio
import gc

from xinference.task_set import TaskSet


async def test_a_task_runs_although_nothing_else_refers_to_it() -> None:
    tasks, ended = TaskSet(), asyncio.Event()

    async def wait_and_end() -> None:
        await asyncio.sleep(0)
        ended.set()

    tasks.start(wait_and_end())
    gc.collect()
    await tasks.wait()
    assert ended.is_set()


async def test_the_end_cancels_all_tasks_and_waits_for_them() -> None:
    tasks, cancelled = TaskSet(), []

    async def run(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cancelled.append(number)

    for number in range(2):
        tasks.start(run(number))
    await asyncio.sleep(0)
    await tasks.end()
    assert sorted(cancelled) == [0, 1]


async def test_a_failed_task_does_not_fail_the_end() -> None:
    tasks = TaskSet()

    async def fail() -> None:
        raise ValueError

    tasks.start(fail())
    await tasks.wait()
    await tasks.end()


async def test_an_ended_task_is_not_kept() -> None:
    tasks = TaskSet()
    tasks.start(asyncio.sleep(0))
    await tasks.wait()
    await asyncio.sleep(0)
    assert not tasks._tasks
