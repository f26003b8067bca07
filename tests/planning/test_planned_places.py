"""The answer of a dry run names the machine and the GPUs of each replica."""

from __future__ import annotations

from dataclasses import replace

from tests.planning.test_planned_states import planned
from xinference.launch.forecast import Forecast
from xinference.launch.place import Place
from xinference.launch.plan_entry import plan_entry


def test_a_plan_of_one_machine_names_it_for_each_replica() -> None:
    plan = planned(replica=2)
    assert plan_entry(plan.launch, plan)["places"] == [
        {"replica": number, "rank": 0, "node": "local", "devices": []} for number in (0, 1)
    ]


def test_a_replica_on_several_nodes_has_a_place_for_each_rank() -> None:
    plan = replace(planned(), places=(Place("n1", (0, 1), ranks=(Place("n2", (3,)),)),))
    assert plan_entry(plan.launch, plan)["places"] == [
        {"replica": 0, "rank": 0, "node": "n1", "devices": [0, 1]},
        {"replica": 0, "rank": 1, "node": "n2", "devices": [3]},
    ]


def test_the_forecast_of_weights_on_a_hub_names_the_node_too() -> None:
    plan = planned()
    forecast = Forecast("registry", plan.sizing, (Place("n1", (2,)),))
    entry = plan_entry(plan.launch, None, forecast)
    assert entry["places"] == [{"replica": 0, "rank": 0, "node": "n1", "devices": [2]}]
    assert entry["devices"] == [[2]]


def test_a_launch_without_a_size_has_no_places_yet() -> None:
    launch = planned().launch
    assert plan_entry(launch, None)["places"] == []
    assert plan_entry(launch, None, Forecast("estimate", None))["places"] == []
