"""What a running engine tells the next server about its plan: its form is a contract between releases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.engines.plans import launch_of, sized
from tests.fakes.fifth_engine.dialect import NAME
from tests.fakes.fifth_engine.engine import FifthEngine
from xinference.deployments.replica_command import engine_command, restore_sizing
from xinference.launch.launch_context import decode_launch, encode_launch
from xinference.launch.plan import SizedPlan

PLAN = sized(launch_of(engine=NAME), devices=((0,), (1,)), memory_fraction=0.5, reasons=("2 slots",))
#: As a release that had one type of plan wrote it.
CONTEXT = {
    "uid": "mine",
    "path": "/weights/here",
    "sizing": {
        "context_length": 4095,
        "slots": 4,
        "weights_bytes": 1,
        "kv_cache_bytes": 4 << 30,
        "overhead_bytes": 1,
        "reasons": ["2 slots"],
        "tensor_parallel": 1,
        "memory_fraction": 0.5,
        "file_pages_bytes": 0,
        "later_bytes": 0,
        "correction_bytes": 0,
        "state_bytes": 0,
    },
    "devices": [[0], [1]],
}


def test_an_engine_is_started_with_its_plan_in_the_form_of_earlier_releases() -> None:
    command = engine_command(FifthEngine(), PLAN, 1, Path("python"))
    context = json.loads(json.dumps(command.context))
    launch = context.pop("launch")
    assert decode_launch("m", launch) == replace(
        PLAN.launch, draft=replace(PLAN.launch.draft, uid="m", reasons=()), reasons=()
    )
    assert {name: context[name] for name in CONTEXT} == CONTEXT
    assert command.env["CUDA_VISIBLE_DEVICES"] == "1"


def test_an_adopted_engine_gives_its_plan_back() -> None:
    assert restore_sizing(PLAN.launch, 0, CONTEXT) == replace(
        PLAN, sizing=msgspec.structs.replace(PLAN.sizing, reasons=())
    )


def test_an_adopted_engine_keeps_whether_its_template_writes_calls() -> None:
    context = engine_command(FifthEngine(), replace(PLAN, writes_calls=False), 0, Path("python")).context
    restored = restore_sizing(PLAN.launch, 0, json.loads(json.dumps(context)))
    assert isinstance(restored, SizedPlan) and restored.writes_calls is False


def test_an_engine_of_a_release_without_saved_states_gives_its_plan_back() -> None:
    sizing = {name: value for name, value in cast(dict[str, Any], CONTEXT["sizing"]).items() if name != "state_bytes"}
    assert restore_sizing(PLAN.launch, 0, CONTEXT | {"sizing": sizing}) == restore_sizing(PLAN.launch, 0, CONTEXT)


def test_each_adopted_replica_keeps_the_devices_that_it_was_started_with() -> None:
    plan = restore_sizing(PLAN.launch, 0, CONTEXT)
    plan = restore_sizing(plan, 1, {**CONTEXT, "devices": [[0], [3]]})
    assert isinstance(plan, SizedPlan) and plan.devices == ((0,), (3,))


@pytest.mark.parametrize(
    "change", [{"request": {}}, {"version": 1}, {"engine": None}, {"options": 3}, {"source": "x", "path": None}]
)
def test_a_launch_of_another_release_is_not_read(change: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(encode_launch(PLAN)))
    assert decode_launch("m", {**stored, **change}) is None
    assert decode_launch("m", None) is None and decode_launch("m", {}) is None


def test_a_context_that_can_not_be_read_leaves_the_launch_to_be_sized_anew() -> None:
    unreadable: list[dict[str, Any]] = [{}, CONTEXT | {"sizing": {"slots": 1}}, CONTEXT | {"devices": 1}]
    for context in unreadable:
        assert restore_sizing(PLAN.launch, 0, context) == PLAN.launch
    assert msgspec.structs.asdict(PLAN.sizing).keys() == cast(dict[str, Any], CONTEXT["sizing"]).keys()
