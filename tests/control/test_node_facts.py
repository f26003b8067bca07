"""What planning learns of the nodes of a cluster, and the refusal where no node has the weights at a path."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from tests.engines.plans import launch_of
from xinference.control.node_facts import size_on_nodes
from xinference.deployments.context import NodePlacer, NodesView
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import ResolvedLaunch
from xinference.launch.request import LaunchRequest


class EmptyPlacer:
    """A placer without a node that has the weights of a launch."""

    def __init__(self, problem: Problem | None) -> None:
        self._problem = problem

    async def view(self, launch: ResolvedLaunch) -> NodesView:
        return NodesView({}, {})

    def best(self, view: NodesView, request: LaunchRequest) -> str:
        if self._problem is not None:
            raise self._problem
        return "n1"


@pytest.mark.parametrize(
    ("refusal", "code"), [(Problem(Code.NO_NODE, "none"), Code.NO_NODE), (None, Code.MODEL_PATH_NOT_FOUND)]
)
async def test_a_launch_from_a_path_that_no_node_has_is_refused(refusal: Problem | None, code: Code) -> None:
    placer = cast("NodePlacer", EmptyPlacer(refusal))
    with pytest.raises(Problem) as caught:
        await size_on_nodes(launch_of(), placer, {}, all_engines()["llama.cpp"])
    assert caught.value.code == code


async def test_the_size_of_a_launch_from_a_hub_is_forecast_while_no_node_has_its_weights() -> None:
    placer, launch = cast("NodePlacer", EmptyPlacer(None)), launch_of()
    launch = replace(launch, origin=launch.version.spec.sources[0])
    assert await size_on_nodes(launch, placer, {}, all_engines()["llama.cpp"]) is None
