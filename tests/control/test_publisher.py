from __future__ import annotations

import json
from typing import Any

from tests.routing.routes import TARGET, route
from xinference.control.publisher import Publisher
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.views import listing_entry
from xinference.errors import Problem
from xinference.routing.table import Route


def entry(uid: str) -> dict[str, Any]:
    return {"id": uid, "object": "model", "created": 7, "model_uid": uid}


def listed(*routes: Route) -> list[dict[str, Any]]:
    publisher = Publisher()
    publisher.publish((each, entry(each.uid)) for each in routes)
    data: list[dict[str, Any]] = json.loads(publisher.table.listing)["data"]
    return data


def test_an_adapter_is_listed_as_its_deployment_is_with_its_own_name_and_its_parents() -> None:
    assert listed(route(TARGET, uid="base", adapters=("mine",))) == [
        entry("base"),
        entry("base") | {"id": "mine", "parent": "base"},
    ]


def test_a_model_is_listed_when_a_request_to_it_is_answered_or_waits() -> None:
    loading, failed = (
        route(uid="loading"),
        route(
            uid="failed",
            problem=Problem(
                "x",
                "It failed.",
                status=503,
            ),
        ),
    )
    answering = route(TARGET, uid="ready"), route(uid="back", recovering=True), route(uid="asleep", on_demand=True)
    assert [one["id"] for one in listed(loading, failed, *answering)] == ["ready", "back", "asleep"]


def test_a_model_with_the_name_of_another_ones_adapter_has_its_own_entry() -> None:
    entries = listed(route(TARGET, uid="base", adapters=("other",)), route(TARGET, uid="other"))
    assert entries == [entry("base"), entry("other")]


def test_whoever_is_told_of_a_new_table_finds_it_in_place() -> None:
    publisher, seen = Publisher(), []
    publisher.subscribe(lambda: seen.append(set(publisher.table.routes)))
    publisher.publish([(route(uid="base", adapters=("mine",)), entry("base"))])
    assert seen == [{"base", "mine"}]


def test_a_broken_deployments_route_has_a_problem_and_no_engine() -> None:
    problem = Problem(
        "bad_row",
        "Its row cannot be read.",
        status=500,
    )
    broken = BrokenDeployment("m", problem, created=5.0)
    publisher = Publisher()
    publisher.publish([(broken.route, listing_entry("m", broken.description))])
    found = publisher.table.routes["m"]
    assert (found.engine, found.problem, found.targets, found.created) == ("", problem, (), 5.0)
    assert json.loads(publisher.table.listing)["data"] == []
