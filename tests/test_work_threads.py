"""Long work has threads of its own, which are limited, and questions to hubs have a deadline and a short queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from tests.support.polling import until_async
from xinference.errors import Problem
from xinference.work_threads import DaemonExecutor, HubQuestions, WorkThreads, start_thread


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends all work of a test that hangs."""
    event = threading.Event()
    yield event
    event.set()


async def test_work_that_hangs_leaves_asyncios_threads_and_other_kinds_alone(release: threading.Event) -> None:
    slow, other = WorkThreads("slow", 100), WorkThreads("other", 1)
    hanging = [asyncio.create_task(slow.run(release.wait)) for _ in range(100)]
    await until_async("all hang", lambda: sum(each.name == "slow" for each in threading.enumerate()) == 100)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 10) == 7
    assert await other.run(lambda: 8) == 8
    release.set()
    await asyncio.gather(*hanging)


async def test_no_more_than_the_limit_run_and_the_others_follow_in_their_order() -> None:
    threads, begun, gates = WorkThreads("x", 2), [], [threading.Event() for _ in range(4)]

    def work(number: int) -> int:
        begun.append(number)
        gates[number].wait()
        return number

    tasks = [asyncio.create_task(threads.run(work, number)) for number in range(4)]
    await until_async("two have begun", lambda: len(begun) == 2)
    assert threads.waiting == 2
    gates[1].set()
    await until_async("the third has begun", lambda: len(begun) == 3)
    assert begun[2] == 2
    for gate in gates:
        gate.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_a_cancelled_call_returns_at_once_and_its_thread_keeps_its_place(release: threading.Event) -> None:
    threads = WorkThreads("x", 1)
    hanging = asyncio.create_task(threads.run(release.wait))
    await until_async("it hangs", lambda: any(each.name == "x" for each in threading.enumerate()))
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    after = asyncio.create_task(threads.run(lambda: 5))
    await until_async("the next one waits", lambda: threads.waiting == 1)
    release.set()
    assert await after == 5


async def test_waiting_work_can_be_cancelled_by_its_task_and_by_its_event(release: threading.Event) -> None:
    threads, flag = WorkThreads("x", 1), threading.Event()
    hanging = asyncio.create_task(threads.run(release.wait))
    await asyncio.sleep(0)
    by_task, by_flag = (asyncio.create_task(threads.run(lambda: 1, cancelled=each)) for each in (None, flag))
    await until_async("both wait", lambda: threads.waiting == 2)
    by_task.cancel()
    flag.set()
    with pytest.raises(Problem) as cancelled:
        await by_flag
    assert cancelled.value.code == "cancelled"
    with pytest.raises(asyncio.CancelledError):
        await by_task
    assert threads.waiting == 0
    release.set()
    await hanging
    assert await threads.run(lambda: 2) == 2


async def test_a_failure_is_the_callers_and_gives_its_place() -> None:
    threads = WorkThreads("x", 1)

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await threads.run(fail)


async def test_a_question_has_a_deadline_and_leaves_its_place_to_the_next(release: threading.Event) -> None:
    questions = HubQuestions(0.05, limit=1)
    for _ in range(3):
        with pytest.raises(Problem) as told:
            await questions.ask(release.wait)
        assert (told.value.code, told.value.status) == ("hub_timeout", 504)
    assert await questions.ask(lambda name: name, name="a") == "a"


async def test_the_queue_of_questions_is_short(release: threading.Event) -> None:
    questions = HubQuestions(3600, limit=1, queue=2)
    asked = [asyncio.create_task(questions.ask(release.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Problem) as told:
        await questions.ask(release.wait)
    assert (told.value.code, told.value.status) == ("hub_busy", 503)
    release.set()
    await asyncio.gather(*asked)
    assert await questions.ask(lambda: 1) == 1


async def test_threads_that_are_left_behind_are_limited(release: threading.Event) -> None:
    questions, begun = HubQuestions(0.05, limit=1, left=2), []

    def hang() -> None:
        begun.append(1)
        release.wait()

    for _ in range(6):
        with pytest.raises(Problem, match="did not answer"):
            await questions.ask(hang)
    assert len(begun) == 3
    release.set()


async def test_a_timeout_of_the_question_itself_stays_what_it_is() -> None:
    def fail() -> None:
        raise TimeoutError("a socket's")

    with pytest.raises(TimeoutError, match="a socket's"):
        await HubQuestions(60).ask(fail)


def test_all_threads_are_daemons() -> None:
    pool = DaemonExecutor(2, "x")
    assert start_thread("x", lambda: threading.current_thread().daemon).result()
    assert [pool.submit(lambda: threading.current_thread().daemon).result() for _ in range(5)] == [True] * 5


def test_an_executor_runs_no_more_than_its_limit_and_drops_what_has_not_begun(release: threading.Event) -> None:
    pool, begun = DaemonExecutor(2, "x"), threading.Semaphore(0)

    def part() -> None:
        begun.release()
        release.wait()

    futures = [pool.submit(part) for _ in range(5)]
    assert begun.acquire(timeout=10) and begun.acquire(timeout=10)
    assert sum(future.running() for future in futures) == 2
    pool.shutdown()
    release.set()
    assert [future.exception() for future in futures if not future.cancelled()] == [None, None]
    dropped = [future for future in futures if future.cancelled()]
    assert len(dropped) == 3
    with pytest.raises(CancelledError):
        dropped[0].result()
