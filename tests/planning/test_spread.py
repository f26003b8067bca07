"""Replicas over nodes: where each goes, what a launch may ask for, and what a refusal says of each node."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.plans import launch_of, sized
from tests.support.examples import examples
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import SizedPlan
from xinference.planning.spread import Candidate, Demand, Fit, Spread, spread

LAUNCH = launch_of()


def fitting(**room: int) -> Fit:
    """Room for so many replicas on each node; each has one device of its own, and a smaller context if it is full."""

    def fit(node_id: str, count: int) -> SizedPlan:
        if count > room[node_id]:
            raise Problem(Code.DOES_NOT_FIT, f"It needs 9 MiB, and {room[node_id]} MiB are free.")
        return sized(
            LAUNCH, devices=tuple((n,) for n in range(count)), context_length=1000 * (room[node_id] - count + 1)
        )

    return fit


def nodes(**shares: float) -> list[Candidate]:
    return [Candidate(name, share, gpus=4) for name, share in shares.items()]


def placed(made: Spread) -> list[str]:
    return [place.node_id for place in made.places]


def test_each_node_gets_one_before_any_gets_two_and_the_most_free_one_is_first() -> None:
    candidates, fit = nodes(a=0.3, b=0.9, c=0.6), fitting(a=2, b=9, c=9)
    assert placed(spread(candidates, Demand("m", 3), fit)) == ["b", "c", "a"]
    made = spread(candidates, Demand("m", 5), fit)
    assert placed(made) == ["b", "c", "a", "b", "c"]
    assert [place.devices for place in made.places] == [(0,), (0,), (0,), (1,), (1,)]


def test_a_node_without_room_is_passed_over() -> None:
    assert placed(spread(nodes(a=0.9, b=0.5), Demand("m", 3), fitting(a=1, b=4))) == ["a", "b", "b"]


def test_pack_fills_the_fullest_node_first() -> None:
    made = spread(nodes(a=0.3, b=0.9, c=0.6), Demand("m", 4, pack=True), fitting(a=2, b=9, c=9))
    assert placed(made) == ["a", "a", "c", "c"]


def test_of_equal_nodes_the_one_with_the_weights_is_first() -> None:
    candidates = [Candidate("a", 0.52), Candidate("b", 0.51, has_weights=True), Candidate("c", 0.9)]
    assert placed(spread(candidates, Demand("m", 3), fitting(a=1, b=1, c=1))) == ["c", "b", "a"]


def test_all_replicas_promise_the_smallest_context_of_the_chosen_nodes() -> None:
    made = spread(nodes(a=0.9, b=0.5, c=0.1), Demand("m", 2), fitting(a=5, b=3, c=1))
    assert placed(made) == ["a", "b"] and made.sizing.context_length == 3000
    assert {node: sizing.context_length for node, sizing in made.sizings.items()} == {"a": 5000, "b": 3000}


def test_a_pin_is_a_pin() -> None:
    candidates = nodes(a=0.9, b=0.5, c=0.1)
    assert placed(spread(candidates, Demand("m", 2, pins=("b", "c")), fitting(a=9, b=9, c=9))) == ["b", "c"]
    with pytest.raises(Problem) as refused:
        spread(candidates, Demand("m", 1, pins=("c",)), fitting(a=9, b=9, c=0))
    assert refused.value.code == "does_not_fit"
    assert "c has no room: It needs 9 MiB, and 0 MiB are free" in refused.value.cause
    assert "a " not in refused.value.cause.partition(": ")[2], "what the launch does not name is no reason"


def test_labels_must_have_the_value() -> None:
    candidates = [Candidate("a", 0.9, labels={"gpu": "a100"}), Candidate("b", 0.5, labels={"gpu": "h100"})]
    candidates.append(Candidate("c", 0.9))
    assert placed(spread(candidates, Demand("m", 1, labels={"gpu": "h100"}), fitting(a=9, b=9, c=9))) == ["b"]
    with pytest.raises(Problem) as refused:
        spread(candidates, Demand("m", 1, labels={"gpu": "b200"}), fitting(a=9, b=9, c=9))
    assert (refused.value.code, refused.value.status) == ("no_node", 503)
    assert "a has gpu=a100, and the launch asks for gpu=b200" in refused.value.cause
    assert "c has no label gpu" in refused.value.cause


def test_a_refusal_says_of_each_node_what_it_lacks() -> None:
    candidates = [*nodes(a=0.9, b=0.5), Candidate("c", 0.9, refusal="is DRAINING")]
    with pytest.raises(Problem) as refused:
        spread(candidates, Demand("m", 4, pins=("a", "b", "c", "z")), fitting(a=2, b=0, c=9))
    assert refused.value.cause == (
        "m needs 4 replicas, and 2 have room: "
        "a has room for 2 of them, and for one more: It needs 9 MiB, and 2 MiB are free; "
        "b has no room: It needs 9 MiB, and 0 MiB are free; c is DRAINING; z is not a node of this cluster."
    )
    with pytest.raises(Problem, match="there is no node") as empty:
        spread([], Demand("m", 1), fitting())
    assert empty.value.code == "no_node"


def test_a_gang_takes_nodes_that_are_alike_and_all_of_them_or_none() -> None:
    candidates = [
        Candidate("a", 0.9, gpus=8, labels={"rack": "1"}),
        Candidate("b", 0.8, gpus=4, labels={"rack": "1"}),
        Candidate("c", 0.7, gpus=4, labels={"rack": "1"}),
        Candidate("d", 0.9, gpus=4, labels={"rack": "2"}),
    ]
    made = spread(candidates, Demand("m", 1, ranks=2), fitting(a=1, b=1, c=1, d=1))
    assert [place.nodes for place in made.places] == [("b", "c")]
    assert made.places[0].ranks[0].devices == (0,)
    with pytest.raises(Problem) as refused:
        spread(candidates, Demand("m", 1, ranks=2), fitting(a=1, b=1, c=0, d=1))
    assert "each on 2 nodes with the same labels and number of GPUs" in refused.value.cause
    assert "b has room, and too few other nodes are like it" in refused.value.cause


def test_the_nodes_of_one_gang_differ() -> None:
    made = spread(nodes(a=0.9, b=0.8), Demand("m", 2, ranks=2), fitting(a=2, b=2))
    assert [sorted(place.nodes) for place in made.places] == [["a", "b"], ["a", "b"]]
    with pytest.raises(Problem):
        spread(nodes(a=0.9), Demand("m", 1, ranks=2), fitting(a=9))


@settings(max_examples=examples(100), deadline=None)
@given(
    room=st.lists(st.integers(0, 3), max_size=5),
    replicas=st.integers(1, 8),
    ranks=st.integers(1, 3),
    pack=st.booleans(),
    shares=st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_no_node_gets_more_than_it_holds_and_whatever_fits_one_by_one_is_placed(
    room: Sequence[int], replicas: int, ranks: int, pack: bool, shares: Sequence[float]
) -> None:
    names = [f"n{number}" for number in range(len(room))]
    rooms = dict(zip(names, room, strict=True))
    candidates = [Candidate(name, share) for name, share in zip(names, shares, strict=False)]
    try:
        made = spread(candidates, Demand("m", replicas, pack=pack, ranks=ranks), fitting(**rooms))
    except Problem as problem:
        assert ranks > 1 or sum(room) < replicas
        assert all(name in problem.cause for name in names)
        return
    taken = [node for place in made.places for node in place.nodes]
    assert len(made.places) == replicas and all(len(set(place.nodes)) == ranks for place in made.places)
    assert all(taken.count(name) <= rooms[name] for name in names)
    if not pack and ranks == 1:
        counts = [taken.count(name) for name in names if taken.count(name) < rooms[name]]
        assert not counts or max(map(taken.count, taken)) - min(counts) <= 1, "a node with room is not left out"
