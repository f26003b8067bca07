"""The deployments by uid: look-ups, refusals with the way out, and the routes that are published."""

from __future__ import annotations

import pytest

from tests.control.parts import Parts
from tests.control.test_controller import DIED
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.errors import Problem


async def test_a_broken_deployment_is_found_but_does_not_run(parts: Parts) -> None:
    broken = BrokenDeployment("m", DIED, 0.0)
    parts.registry.add(broken)
    assert parts.registry.deployment("m") is broken and parts.registry.working() == []
    with pytest.raises(Problem) as refused:
        parts.registry.running("m")
    assert refused.value is DIED


async def test_a_replaced_deployment_is_not_in_the_registry(parts: Parts) -> None:
    first, second = parts.add("m"), parts.add("m")
    assert not parts.registry.has(first) and parts.registry.has(second) and parts.uids() == ["m"]


async def test_the_routes_of_all_are_published_and_a_removed_one_has_none(parts: Parts) -> None:
    parts.add("m", aliases=("a",))
    parts.add("n")
    assert set(parts.publisher.table.routes) == set(parts.registry.names()) == {"m", "n", "a"}
    parts.registry.remove("m")
    parts.registry.publish()
    assert set(parts.publisher.table.routes) == {"n"}


async def test_the_uid_of_an_alias_is_that_of_its_deployment(parts: Parts) -> None:
    parts.add("m", aliases=("a",))
    assert [parts.registry.uid_of(name) for name in ("m", "a", "unknown")] == ["m", "m", "unknown"]


@pytest.mark.parametrize(
    ("uid", "hint"),
    [("a", "Use llama."), ("lama", "Did you mean llama?"), ("other", "Running models: llama."), ("dead", "exited")],
)
async def test_an_unknown_uid_is_refused_with_the_way_out(parts: Parts, uid: str, hint: str) -> None:
    parts.add("llama", aliases=("a",))
    parts.history.begun("dead", "{}", 1.0)
    parts.history.ended("dead", DIED)
    with pytest.raises(Problem) as refused:
        parts.registry.deployment(uid)
    assert refused.value.code == "model_not_found" and hint in str(refused.value.hint)


async def test_a_very_long_uid_is_shown_in_part(parts: Parts) -> None:
    with pytest.raises(Problem) as refused:
        parts.registry.deployment("x" * 5000)
    assert refused.value.cause == f"There is no running model '{'x' * 200}'."
