from __future__ import annotations

from xinference.gateway.balancer import Balancer
from xinference.routing.table import Target

A, B, C = (Target(name, f"http://127.0.0.1:{n}", "k") for n, name in enumerate("abc"))


def test_the_least_loaded_target_is_chosen() -> None:
    load = Balancer()
    load.begin(A)
    load.begin(A)
    load.begin(B)
    assert load.choose((A, B)) == B
    load.end(A)
    load.end(A)
    assert load.choose((A, B)) == A


def test_ties_are_taken_in_turn() -> None:
    load = Balancer()
    chosen = [load.choose((A, B, C)) for _ in range(6)]
    assert {*chosen[:3]} == {*chosen[3:]} == {A, B, C}


def test_a_tried_target_is_not_chosen_again() -> None:
    load = Balancer()
    assert load.choose((A, B), {A}) == B
    assert load.choose((A,), {A}) is None
    assert load.choose(()) is None


def test_an_idle_target_is_forgotten() -> None:
    load = Balancer()
    load.begin(A)
    assert (load.count(A), load.total) == (1, 1)
    load.end(A)
    assert (load.count(A), load.total) == (0, 0)


def test_one_that_needs_a_free_slot_leaves_the_replica_that_knows_its_prompt() -> None:
    load, body = Balancer(), b'{"messages":[%b' % (b"x" * 2000)
    known = load.choose((A, B), body=body, prompt_field="messages")
    assert known is not None
    other = B if known == A else A
    for target, count in ((known, 4), (other, 2)):
        for _ in range(count):
            load.begin(target)
    assert load.choose((A, B), body=body, prompt_field="messages") == known
    assert load.choose((A, B), body=body, prompt_field="messages", slots=4) == other
    for _ in range(2):
        load.begin(other)
    assert load.choose((A, B), body=body, prompt_field="messages", slots=4) == known, "none is free"
