"""Which nodes of Ray get a worker, under which address it finds the supervisor, and what is reserved: pure."""

from __future__ import annotations

import pytest

from xinference.cluster.ray_plan import (
    GONE_SECONDS,
    REFUSED_SECONDS,
    SILENT_SECONDS,
    RayWorker,
    endpoint_for,
    gone,
    holds_of,
    is_chosen,
    is_due,
)
from xinference.fabric.ray_messages import Hold, RayNodeEntry, RayState
from xinference.planning.eviction import HOST

NODE = RayNodeEntry("abc", "box1", "10.0.0.2", {"CPU": 8.0, "GPU": 2.0, "memory": 1000.0}, {"zone": "a"})
HEAD = RayNodeEntry("def", "box0", "10.0.0.1", {"memory": 1000.0, "object_store_memory": 1.0})


@pytest.mark.parametrize(
    ("node", "names", "chosen"),
    [
        (NODE, [], True),
        (HEAD, [], False),
        (HEAD, ["box0"], True),
        (NODE, ["box0"], False),
        (NODE, ["abc"], True),
        (NODE, ["10.0.0.2"], True),
        (NODE, ["other", "zone=a"], True),
        (NODE, ["zone=b"], False),
    ],
)
def test_the_nodes_that_are_named_get_a_worker_or_all_that_offer_something(
    node: RayNodeEntry, names: list[str], chosen: bool
) -> None:
    assert is_chosen(node, names) is chosen


@pytest.mark.parametrize(
    ("host", "given", "address", "endpoint"),
    [
        ("0.0.0.0", "", "10.0.0.2", "http://10.0.0.9:9997"),
        ("10.1.0.9", "", "10.0.0.2", "http://10.1.0.9:9997"),
        ("127.0.0.1", "", "10.0.0.9", "http://127.0.0.1:9997"),
        ("127.0.0.1", "", "10.0.0.2", None),
        ("127.0.0.1", "https://xinference.example", "10.0.0.2", "https://xinference.example"),
        ("::", "", "10.0.0.2", "http://10.0.0.9:9997"),
    ],
)
def test_a_worker_gets_an_address_that_its_machine_reaches(
    host: str, given: str, address: str, endpoint: str | None
) -> None:
    node = RayNodeEntry("abc", "box", address)
    assert endpoint_for(node, RayState("10.0.0.9", "2.60.0"), host, 9997, given) == endpoint


def test_ray_is_asked_for_a_worker_at_first_and_again_when_it_failed_or_is_silent() -> None:
    worker = RayWorker(NODE)
    assert is_due(worker, is_linked=False, now=0)
    worker.is_asked = True
    assert not is_due(worker, is_linked=False, now=1000), "it is asked now"
    worker.is_asked, worker.asked_at, worker.node_id = False, 0.0, "n1"
    assert not is_due(worker, is_linked=True, now=1000)
    assert not is_due(worker, is_linked=False, now=SILENT_SECONDS - 1)
    assert is_due(worker, is_linked=False, now=SILENT_SECONDS)
    worker.problem = "its worker ended at once"
    assert not is_due(worker, is_linked=False, now=REFUSED_SECONDS - 1)
    assert is_due(worker, is_linked=False, now=REFUSED_SECONDS)


def test_what_replicas_use_is_reserved_as_far_as_ray_counts_it() -> None:
    uses: dict[str, list[dict[int, int]]] = {
        "n1": [{HOST: 300, 1: 5}, {0: 7, 1: 2}],
        "n2": [{HOST: 5000}, {HOST: 1}],
        "n3": [{}],
    }
    small = RayNodeEntry("small", "s", "10.0.0.3", {"CPU": 1.0, "memory": 1000.0})
    workers = [RayWorker(NODE, "n1"), RayWorker(small, "n2"), RayWorker(HEAD, "n3"), RayWorker(HEAD)]
    assert holds_of(workers, lambda node_id: uses[node_id]) == (
        Hold("abc", (0, 1), 300, 2.0),
        Hold("small", (), 1000, 1.0),
    )


def test_a_gpu_that_ray_does_not_count_is_not_asked_of_it() -> None:
    (hold,) = holds_of([RayWorker(NODE, "n1")], lambda _: [{0: 1, 5: 1}])
    assert hold.gpus == (0,)


def test_a_node_is_over_when_its_machine_was_away_for_long_while_ray_answered() -> None:
    here = RayWorker(NODE, "n1", asked_at=1.0)
    since, over = gone(["n1", "n2"], [here], {}, 10.0)
    assert (since, over) == ({"n2": 10.0}, [])
    assert gone(["n1", "n2"], [here], since, 10.0 + GONE_SECONDS)[1] == ["n2"]
    assert gone(["n1", "n2"], [here, RayWorker(HEAD, "n2", asked_at=1.0)], since, 99.0) == ({}, []), "it is back"


def test_no_node_is_over_before_each_living_node_has_named_its_worker() -> None:
    unknown = RayWorker(HEAD)
    assert gone(["n2"], [unknown], {"n2": 0.0}, 1000.0) == ({"n2": 0.0}, [])
