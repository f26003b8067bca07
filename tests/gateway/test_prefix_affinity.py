"""Prompts that begin alike go to the same replica, without any replica getting too much. Simulated, without engines."""

from __future__ import annotations

import itertools

import pytest
from benchmarks.shared_prefixes import RoundRobin, Traffic, body_of, client, simulate, working_set

from xinference.gateway.balancer import EXCLUDED_SECONDS, FAILURES, Balancer
from xinference.gateway.prefix_affinity import COMMON_ENDS, EVEN_UP_TO, POSITIONS, Prefixes, prefix_hashes
from xinference.routing.table import Target

#: Simulations that take seconds together.
thorough = pytest.mark.thorough
TARGETS = tuple(Target(name, f"http://127.0.0.1:{n}", "k") for n, name in enumerate("abcd"))
OWN_SYSTEM_PROMPTS = Traffic(conversations=40, systems=40)


def hashes(text: str, field: str = "messages", before: bytes = b"{") -> list[int]:
    return prefix_hashes(before + b'"%b":[%b' % (field.encode(), text.encode()), field)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=thorough), pytest.param(3, marks=thorough)])
def test_conversations_find_nearly_twice_the_blocks_of_round_robin_with_the_load_shared_out(seed: int) -> None:
    # Each replica keeps three tenths of what the conversations need together: one can't keep all, four can.
    capacity = working_set(OWN_SYSTEM_PROMPTS) * 3 // 10
    ours = simulate(Balancer(), OWN_SYSTEM_PROMPTS, capacity=capacity, seed=seed)
    in_turn = simulate(RoundRobin(), OWN_SYSTEM_PROMPTS, capacity=capacity, seed=seed)
    assert ours.hits >= 1.8 * in_turn.hits
    assert ours.max_over_mean <= 1.25


@pytest.mark.parametrize("at_once", [1, pytest.param(4, marks=thorough), 40])
@pytest.mark.parametrize("systems", [1, pytest.param(10, marks=thorough), 40])
def test_no_replica_gets_more_than_a_quarter_over_the_mean(systems: int, at_once: int) -> None:
    traffic = Traffic(systems=systems)
    outcome = simulate(Balancer(), traffic, capacity=working_set(traffic) // 3, at_once=at_once)
    assert outcome.max_over_mean <= 1.25
    assert outcome.hit_share > 0.7


def test_a_prompt_that_goes_on_has_the_hashes_of_its_beginning() -> None:
    short, long = hashes("x" * 700), hashes("x" * 2000)
    assert long[: len(short)] == short and len(long) > len(short)
    assert hashes("y" + "x" * 1999)[0] != long[0]


def test_positions_are_dense_at_first_and_then_an_eighth_apart() -> None:
    later = [position for position in POSITIONS if position >= EVEN_UP_TO]
    assert all(after - before <= before / 8 for before, after in itertools.pairwise(later))
    assert len(POSITIONS) < 100


def test_what_stands_before_the_prompt_does_not_count_but_anthropics_system_prompt_does() -> None:
    assert hashes("x" * 700) == hashes("x" * 700, before=b'{"seed":12345,')
    one, other = hashes("x" * 700, before=b'{"system":"one",'), hashes("x" * 700, before=b'{"system":"other",')
    assert one != other
    assert hashes("x" * 700, field="prompt") != []


def test_remembered_prefixes_are_bounded_and_the_oldest_are_forgotten() -> None:
    prefixes = Prefixes(remembered=100)
    for number in range(1000):
        prefixes.remember([hash((number, n)) for n in range(5)], "a")
    assert len(prefixes) <= 210
    assert prefixes.longest([hash((999, n)) for n in range(5)], "a") is not None
    assert prefixes.longest([hash((0, n)) for n in range(5)], "a") is None


def test_the_longest_known_prefix_counts_and_its_last_replica_comes_first() -> None:
    prefixes = Prefixes()
    prefixes.remember([1, 2, 3], "a")
    prefixes.remember([1, 2, 4], "b")
    ours, theirs, common = (prefixes.longest(each, "ab") for each in ([1, 2, 3, 9], [1, 2, 4], [1, 2, 5]))
    assert ours is not None and ours.replicas == ("a",)
    assert theirs is not None and theirs.replicas == ("b",)
    assert common is not None and common.replicas == ("b", "a") and not common.common
    for _ in range(COMMON_ENDS):
        prefixes.longest([1, 2, 5], "ab")
    assert common.common


def test_a_conversation_stays_at_its_replica_while_that_has_no_more_to_do_than_the_others() -> None:
    load = Balancer()
    bodies = [body_of(messages) for messages in client(Traffic(rounds=1, turns=4), 0, seed=5)]
    first = load.choose(TARGETS, (), bodies[0], "messages")
    assert first is not None
    assert load.choose(TARGETS, (), bodies[1], "messages") == first
    for _ in range(3):
        load.begin(first)
    elsewhere = load.choose(TARGETS, (), bodies[-1], "messages")
    assert elsewhere is not None and elsewhere != first


def test_after_the_end_of_a_replica_a_shorter_prefix_at_another_one_counts() -> None:
    """The first one had the whole conversation, and has exited; the others never had more than its system prompt."""
    load, system = Balancer(), "s" * 2000
    conversation = body_of([{"role": "system", "content": system + "q" * 2000}])
    first = load.choose(TARGETS[:2], (), conversation, "messages")
    second = load.choose(TARGETS[2:], (), body_of([{"role": "system", "content": system}]), "messages")
    left = [target for target in TARGETS if target != first]
    assert load.choose(left, (), conversation, "messages") == second


def test_a_prefix_that_only_an_exited_replica_had_is_new() -> None:
    load, body = Balancer(), body_of([{"role": "system", "content": "s" * 2000}])
    load.choose(TARGETS[:2], (), body, "messages")
    load.take_affinity()
    load.choose(TARGETS[2:], (), body, "messages")
    assert [reason for _, reason, _ in load.take_affinity()] == ["new"]


def test_a_new_replica_does_not_get_every_request_until_it_has_caught_up() -> None:
    load = Balancer()
    for _ in range(300):
        load.choose(TARGETS[:3])
    chosen = [load.choose(TARGETS) for _ in range(40)]
    assert 8 <= chosen.count(TARGETS[3]) <= 12


def test_a_replica_that_cannot_be_reached_is_put_aside_until_the_next_table(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("xinference.gateway.balancer.time.monotonic", lambda: now)
    load, table = Balancer(), TARGETS[:2]
    for _ in range(FAILURES):
        assert TARGETS[0] in {load.choose(table), load.choose(table)}
        load.failed(table, TARGETS[0])
    assert {load.choose(table) for _ in range(4)} == {TARGETS[1]}
    assert load.choose(table, {TARGETS[1]}) == TARGETS[0], "better than nothing"
    new_table = (*table[:1], *table[1:])
    assert {load.choose(new_table) for _ in range(4)} == set(table)
    for _ in range(FAILURES):
        load.failed(new_table, TARGETS[0])
    now += EXCLUDED_SECONDS
    assert {load.choose(new_table) for _ in range(4)} == set(table)


def test_a_replica_that_answers_again_is_trusted() -> None:
    load = Balancer()
    load.failed(TARGETS, TARGETS[0])
    load.reached(TARGETS[0])
    load.failed(TARGETS, TARGETS[0])
    assert TARGETS[0] in {load.choose(TARGETS) for _ in range(8)}
