"""What is known of one deployment at this moment: read by everybody, changed in its own task."""

from __future__ import annotations

import msgspec

from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.measurement import Used
from xinference.deployments.on_demand import OnDemand
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan


class DeploymentState:
    """What the parts of a deployment share."""

    def __init__(self, plan: LaunchPlan, around: DeploymentContext, created: float, problem: Problem | None) -> None:
        self.plan = plan
        self.around = around
        self.engine = around.engines[plan.engine]
        self.created = created
        self.status = "CREATING" if problem is None else "ERROR"
        self.stage = "pending" if problem is None else "failed"
        self.problem = problem
        # Rows of replicas mean that an earlier server had it running: requests may wait for it.
        self.was_ready = bool(around.store.replicas(plan.uid))
        self.ending: Ending | None = None
        self.used: Used | None = None
        self.load_began = created
        self.on_demand = OnDemand(plan.request, around.settings) if plan.request.on_demand else None

    @property
    def uid(self) -> str:
        return self.plan.uid

    @property
    def launch(self) -> ResolvedLaunch:
        return self.plan.launch if isinstance(self.plan, SizedPlan) else self.plan

    @property
    def sized(self) -> SizedPlan:
        """The plan of what is kept running: an engine is started, and replicas are changed, once it is sized."""
        if not isinstance(self.plan, SizedPlan):
            raise RuntimeError(f"{self.uid} is not sized yet")
        return self.plan

    def show(self, status: str, stage: str) -> None:
        """Publish where it is."""
        self.status, self.stage = status, stage
        self.around.changed()

    def say(self, event_type: str, stage: str, content: str) -> None:
        """Add to its events."""
        self.around.events.add(self.uid, event_type, stage, content)

    def set_plan(self, plan: SizedPlan) -> None:
        """The row first: from here on a restart of the server makes the new number of replicas."""
        self.around.store.set_request(plan.uid, msgspec.json.encode(plan.request).decode())
        self.plan = plan
