"""The nodes of a cluster in the tables and texts about models; on one machine there are none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from xinference.cli.model_description import instance_text
from xinference.cli.replica_nodes import place_text


def replica(*nodes: str, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """A replica on these nodes."""
    several = {"nodes": list(nodes)} if len(nodes) > 1 else {}
    named = {"node_names": list(names)} if names else {}
    return {"replica_id": 0, "status": "READY", "node": nodes[0], **several, **named}


def instance(*replicas: dict[str, Any]) -> dict[str, Any]:
    return {"model_uid": "m", "model_name": "m", "status": "READY", "problem": None, "replicas": list(replicas)}


LOCAL = replica("local", names=("head",))
FIRST, SECOND, THIRD = (replica(f"n{n}", names=(f"box{n}",)) for n in (1, 2, 3))


@pytest.mark.parametrize("wide", [(), ("--wide",)])
@pytest.mark.parametrize(
    ("replicas", "shown"),
    [
        ((replica("local"),), None),
        ((LOCAL, LOCAL), None),
        ((FIRST,), "box1"),
        ((FIRST, FIRST), "box1"),
        ((LOCAL, FIRST), "head, box1"),
        ((FIRST, SECOND, THIRD), "3 nodes"),
        ((replica("n1", "n2", names=("box1", "box2")),), "box1, box2"),
        ((replica("n1"),), "n1"),
    ],
)
def test_the_list_has_nodes_only_if_a_replica_runs_elsewhere(
    canned: Canned, run: Run, replicas: Any, shown: str | None, wide: tuple[str, ...]
) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer([instance(*replicas), instance(LOCAL)])
    header, _, first, second = run("list", *wide).stdout.splitlines()
    assert ("Node" in header.split()) is (shown is not None)
    if shown is not None:
        at = header.index("Node")
        assert first[at:].startswith(f"{shown}  ") and second[at:].startswith("head  ")


def test_a_replica_is_described_by_the_names_of_its_nodes() -> None:
    assert place_text(LOCAL) is None and place_text({"replica_id": 0}) is None
    assert place_text(FIRST) == "node box1"
    assert place_text(replica("n1", "n2", names=("box1", "box2"))) == "nodes box1 + box2"
    assert "0: READY, node box1" in instance_text(instance(FIRST))
