"""Where requests go, and what is computed: a placement with a replica in memory."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.engines.llama_cpp.slot_engine import SlotEngine
from tests.support.examples import examples
from xinference.engines.llama_cpp.model_states import LlamaCppStates
from xinference.engines.llama_cpp.placement import PlacedRequest, SlotPlacement
from xinference.engines.request_placement import StateLimits

CHAT = "/v1/chat/completions"
LONG = 8000


def text_of(name: str, size: int = LONG) -> str:
    return "".join(random.Random(name).choices("abcdefgh ", k=size))


def body(system: str, *turns: str, size: int = LONG, **fields: Any) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": text_of(system, size)}]
    messages += [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


class Replica:
    """A placement with its engine; `restart` begins with an empty engine and the states that the disk has."""

    def __init__(
        self, folder: Path, *, slots: int = 4, memory: int = 1 << 20, disk: int = 1 << 20, by_client: bool = False
    ) -> None:
        self.memory, self.disk = folder / "memory", folder / "disk"
        self.memory.mkdir(exist_ok=True)
        self.disk.mkdir(exist_ok=True)
        self.limits = StateLimits(self.memory, self.disk, memory, disk, 60.0, by_client)
        self.count = slots
        self.states = LlamaCppStates(self.limits, SlotPlacement)
        self.restart()

    def restart(self) -> None:
        self.engine = SlotEngine(self.memory, [""] * self.count)
        self.placement = self.states.placement(self.count)

    async def place(self, body: bytes, client: str = "a") -> PlacedRequest:
        placed = await self.placement.place(CHAT, body, client, self.engine.ask)
        assert isinstance(placed, PlacedRequest)
        return placed

    async def ask(self, body: bytes, client: str = "a", *, complete: bool = True) -> int:
        """One whole request; returns the characters that it computed, or that were computed for it."""
        before = len(self.engine.computed)
        placed = await self.place(body, client)
        self.engine.run(placed.body)
        placed.end(complete=complete)
        await asyncio.sleep(0)
        return sum(self.engine.computed[before:])


def test_eight_at_once_with_one_beginning_compute_it_once(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=8)
        replica.engine.gate.clear()
        tasks = [asyncio.create_task(replica.place(body("s", f"question {n}"))) for n in range(8)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert [what for what, *_ in replica.engine.asked] == ["compute"]
        replica.engine.gate.set()
        for placed in await asyncio.gather(*tasks):
            replica.engine.run(placed.body)
        assert sum(replica.engine.computed) < 1.1 * LONG
        assert replica.states.figures.waited == 7
        assert replica.states.figures.restored == 7

    asyncio.run(scene())


def test_eight_at_once_after_one_compute_only_their_questions(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=8)
        await replica.ask(body("s", "first"))
        before = sum(replica.engine.computed)
        placed = await asyncio.gather(*(replica.place(body("s", f"question {n}")) for n in range(8)))
        for each in placed:
            replica.engine.run(each.body)
            each.end(complete=True)
        assert len({json.loads(each.body)["id_slot"] for each in placed}) == 8
        assert sum(replica.engine.computed) - before < 8 * 40

    asyncio.run(scene())


def test_a_request_whose_conversation_is_being_saved_waits_for_its_state(tmp_path: Path) -> None:
    """Other requests take both slots; the conversation that loses its slot for one of them comes at that moment."""

    async def scene() -> None:
        replica = Replica(tmp_path, slots=2)
        await replica.ask(body("first", "x"))
        await replica.ask(body("second", "x"))
        before = sum(replica.engine.computed)
        bodies = body("third", "x"), body("first", "x", "answer", "more")
        for placed in await asyncio.gather(*(replica.place(each) for each in bodies)):
            replica.engine.run(placed.body)
        assert sum(replica.engine.computed) - before < 1.1 * LONG

    asyncio.run(scene())


def test_a_save_that_fails_or_is_left_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def scene(leave: bool) -> None:
        folder = tmp_path / str(leave)
        folder.mkdir()
        replica = Replica(folder)
        await replica.ask(body("s", "first"))
        replica.engine.refuses = set() if leave else {"save"}
        tasks = [asyncio.create_task(replica.place(body("s", f"question {n}"))) for n in range(3)]
        await asyncio.sleep(0)
        if leave:
            tasks.pop(0).cancel()
        for placed in await asyncio.gather(*tasks):
            placed.end(complete=True)

    asyncio.run(scene(leave=False))
    asyncio.run(scene(leave=True))


def test_a_conversation_stays_in_its_slot_without_any_action(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path)
        turns = ["hello"]
        await replica.ask(body("s", *turns))
        for n in range(5):
            turns += [f"answer {n}", f"question {n}"]
            assert await replica.ask(body("s", *turns)) < 100
        assert {what for what, *_ in replica.engine.asked} == {"compute"}

    asyncio.run(scene())


def test_four_agents_compute_their_system_prompt_once_and_each_turn_once(tmp_path: Path) -> None:
    """Each of 20 turns is asked by all agents at once; seven of eight requests cause no action of the engine."""

    async def scene() -> None:
        replica = Replica(tmp_path, slots=8)
        turns: list[list[str]] = [[] for _ in range(4)]
        new = 0
        for turn in range(20):
            for agent, said in enumerate(turns):
                said.append(text_of(f"{agent} {turn}", 200))
            new += 4 * 200
            placed = await asyncio.gather(*(replica.place(body("s", *said)) for said in turns))
            for said, each in zip(turns, placed, strict=True):
                replica.engine.run(each.body)
                each.end(complete=True)
                said.append("done")
        assert sum(replica.engine.computed) < 1.1 * (LONG + new)
        assert len(replica.engine.asked) <= 80 // 8

    asyncio.run(scene())


def test_short_requests_without_anything_in_common_cost_no_action_while_slots_are_empty(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path)
        for n in range(4):
            await replica.ask(body(f"s{n}", "x", size=1400))
        assert replica.engine.asked == []

    asyncio.run(scene())


def test_more_conversations_than_slots_are_saved_and_restored(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=2)
        for n in range(6):
            await replica.ask(body(f"s{n}", "x"))
        for n in range(6):
            assert await replica.ask(body(f"s{n}", "x", "answer", "more")) < 100

    asyncio.run(scene())


def test_states_in_memory_are_bounded_and_their_files_deleted(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=1, memory=3 * LONG)
        for n in range(20):
            await replica.ask(body(f"s{n}", "x"))
            assert replica.states.figures.bytes <= 3 * LONG
            held = sum(path.stat().st_size for path in replica.memory.iterdir())
            assert held == replica.states.figures.bytes

    asyncio.run(scene())


def test_a_restarted_engine_gets_the_states_back(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=2)
        await replica.ask(body("s", "first"))
        await replica.ask(body("s", "second"))
        replica.restart()
        assert await replica.ask(body("s", "third")) < 100

    asyncio.run(scene())


def test_what_one_replica_has_saved_another_one_restores(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = Replica(tmp_path)
        for question in ("q1", "q2", "q3"):
            await one.ask(body("s", question))
        one.restart()  # another engine with the same states
        assert await one.ask(body("s", "q4")) < LONG / 8
        assert one.states.figures.restored == 1

    asyncio.run(scenario())


def test_a_beginning_that_came_to_another_replica_is_saved_when_it_is_computed_again(tmp_path: Path) -> None:
    """Each of three replicas gets it once: the third one restores what the second one has saved."""

    async def scenario() -> None:
        replica, computed = Replica(tmp_path), []
        for question in ("q1", "q2", "q3"):
            computed.append(await replica.ask(body("s", question)))
            replica.restart()
        assert computed[0] >= LONG and computed[1] >= LONG
        assert computed[2] < LONG / 8

    asyncio.run(scenario())


def test_a_hot_state_survives_the_server_on_the_disk_and_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    async def scene(damage: bool) -> int:
        folder = tmp_path / str(damage)
        folder.mkdir()
        replica = Replica(folder, slots=4)
        await replica.ask(body("s", "first"))
        waiting = [await replica.place(body("s", f"question {n}")) for n in range(4)]
        for each in waiting:
            each.end(complete=True)
        replica.states.keep_hot()
        await replica.states.wait_kept()
        assert replica.states.figures.disk_bytes
        replica.states.drop_memory()
        assert not any(path.name.endswith(".state") for path in replica.memory.iterdir())
        for path in replica.disk.glob("*.state"):
            if damage:
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
        return await Replica(folder, slots=4).ask(body("s", "later"))

    assert asyncio.run(scene(damage=False)) < 100
    assert asyncio.run(scene(damage=True)) > LONG


def test_a_beginning_that_stays_in_its_slot_is_kept_on_the_disk_too(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=1)
        for n in range(5):
            await replica.ask(body("s", f"question {n}"))
        await replica.states.wait_kept()
        assert replica.states.figures.restored == 0
        assert replica.states.figures.disk_bytes > LONG

    asyncio.run(scene())


def test_a_file_in_memory_that_was_replaced_is_not_restored(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=1)
        await replica.ask(body("s", "x"))
        await replica.ask(body("other", "x"))
        for path in replica.memory.glob("*.state"):
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere")
        await replica.ask(body("s", "x", "answer", "more"))
        assert ("restore", "0") not in replica.engine.asked

    asyncio.run(scene())


def test_keys_apart_share_nothing_and_find_no_foreign_prompt_in_their_slot(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=1, by_client=True)
        await replica.ask(body("s", "x"), "one")
        assert await replica.ask(body("s", "x"), "two") > LONG
        assert ("erase", "0") in replica.engine.asked
        assert await replica.ask(body("s", "x"), "one") < 100

    asyncio.run(scene())


def test_a_leader_that_leaves_wakes_the_next_one(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=4)
        replica.engine.gate.clear()
        tasks = [asyncio.create_task(replica.ask(body("s", f"question {n}"))) for n in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        tasks[0].cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert [what for what, *_ in replica.engine.asked] == ["compute", "compute"]
        replica.engine.gate.set()
        await asyncio.gather(*tasks[1:])
        assert sum(replica.engine.computed) < 1.1 * LONG

    asyncio.run(scene())


def test_an_engine_that_saves_nothing_is_left_alone_after_three_failures(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=1)
        replica.engine.refuses = {"save"}
        for n in range(4):
            await replica.ask(body(f"s{n}", "x"))
        assert await replica.placement.place(CHAT, body("s9", "x"), "a", replica.engine.ask) is None

    asyncio.run(scene())


def test_a_request_for_several_choices_gets_as_many_slots(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica(tmp_path, slots=4)
        several = await replica.place(body("s", "x", n=3))
        single = await replica.place(body("s", "y"))
        waiting = asyncio.create_task(replica.place(body("s", "z")))
        await asyncio.sleep(0)
        assert not waiting.done()
        several.end(complete=True)
        assert json.loads((await waiting).body)["id_slot"] != json.loads(single.body)["id_slot"]

    asyncio.run(scene())


EVENT = st.tuples(st.sampled_from(("ask", "ask", "ask", "end", "abort", "cancel", "restart")), st.integers(0, 7))


@given(st.lists(EVENT, max_size=40), st.integers(1, 4), st.integers(1, 4))
@hypothesis_settings(max_examples=examples(60))
def test_no_order_of_events_gives_a_slot_to_two_requests_or_leaves_one_waiting(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], slots: int, states: int
) -> None:
    folder = tmp_path_factory.mktemp("states")

    async def scene() -> None:
        replica = Replica(folder, slots=slots, memory=states * LONG + 1000)
        tasks: list[asyncio.Task[PlacedRequest]] = []
        running: list[PlacedRequest] = []

        def collect() -> None:
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                if not task.cancelled():
                    running.append(task.result())
                    replica.engine.run(running[-1].body)
            held = [json.loads(each.body)["id_slot"] for each in running]
            assert len(held) == len(set(held)) <= slots
            assert replica.states.figures.bytes <= states * LONG + 1000

        for what, number in events:
            if what == "ask":
                tasks.append(asyncio.create_task(replica.place(body(f"s{number % 3}", f"q{number}"))))
            elif what in ("end", "abort") and running:
                running.pop(number % len(running)).end(complete=what == "end")
            elif what == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif what == "restart" and not tasks and not running:
                replica.restart()
            for _ in range(number):
                await asyncio.sleep(0)
            collect()
        for _ in range(2000):
            if not tasks and not running:
                break
            if running:
                running.pop().end(complete=True)
            await asyncio.sleep(0)
            collect()
        assert not tasks

    asyncio.run(scene())
