"""The answer of a dry run: the plan of a launch, or the earlier launch that it repeats, with the plan of a copy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xinference.control.same_launch import Found
from xinference.errors import Problem
from xinference.launch.forecast import Forecast
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.plan_entry import plan_entry


@dataclass(frozen=True)
class PlannedLaunch:
    """The plan of a launch: its size, or the forecast if the weights are not on this machine."""

    launch: ResolvedLaunch
    sized: SizedPlan | None = None
    forecast: Forecast | None = None
    found: Found | None = None
    """The state of the earlier, equal launch, whose plan this is; None: the launch is a new one."""
    copy: PlannedLaunch | Problem | None = None
    """With `found`: the plan of a copy, which ``new`` launches, or the reason why a copy is refused."""

    @classmethod
    def of_deployment(cls, plan: LaunchPlan, found: Found, copy: PlannedLaunch | Problem) -> PlannedLaunch:
        """The plan of a deployment that a launch would repeat."""
        sized = plan if isinstance(plan, SizedPlan) else None
        return cls(sized.launch if sized else _resolved(plan), sized, found=found, copy=copy)


def planned_entry(planned: PlannedLaunch, warnings: Iterable[str] = ()) -> dict[str, Any]:
    """A plan in the form of the API.

    Args:
        planned: the plan.
        warnings: the fields of the launch that have no effect.
    """
    copy = planned.copy
    return {
        **plan_entry(planned.launch, planned.sized, planned.forecast),
        "warnings": list(warnings),
        "found": planned.found,
        "plan_of_copy": planned_entry(copy) if isinstance(copy, PlannedLaunch) else None,
        "problem_of_copy": copy.to_dict() if isinstance(copy, Problem) else None,
    }


def _resolved(plan: LaunchPlan) -> ResolvedLaunch:
    assert isinstance(plan, ResolvedLaunch)
    return plan
