"""The record of a deployment that its owner writes: snapshot, row and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from xinference.deployments import views
from xinference.deployments.context import DeploymentContext
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import DeploymentSnapshot, Stage, Status
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan


class Record:
    """Makes each new snapshot, and publishes it."""

    def __init__(
        self, context: DeploymentContext, engine: Engine, replicas: ReplicaSet, first: DeploymentSnapshot
    ) -> None:
        self._context = context
        self._engine = engine
        self._replicas = replicas
        self.snapshot = first
        self.change()

    def change(self, **changes: Any) -> None:
        """Replace the snapshot by one with these fields, and with what the replicas are now."""
        plan: LaunchPlan = changes.get("plan", self.snapshot.plan)
        self.snapshot = replace(
            self.snapshot,
            replicas=self._replicas.views(plan.request.replica),
            last_log=self._replicas.last_log,
            **changes,
        )

    def publish(self, **changes: Any) -> None:
        """The same, and let the gateway and the admission know."""
        self.change(**changes)
        self._context.publish()
        self._context.admission.changed()

    def show(self, status: Status, stage: Stage) -> None:
        """Publish where it is."""
        self.publish(status=status, stage=stage)

    def set_replicas(self, plan: SizedPlan) -> None:
        """There should be another number of replicas, whose memory `plan` holds.

        The row first: from here on a restart of the server makes the new number.
        """
        uid = self.snapshot.uid
        self._context.store.set_request(uid, msgspec.json.encode(plan.request).decode())
        self.change(plan=plan)
        self._context.admission.hold(uid, plan)

    # -- events -----------------------------------------------------------------------------------------------

    def say(self, stage: Stage, content: str, *, level: str = "INFO") -> None:
        """Add to its events; `level` is ``INFO``, ``WARNING`` or ``ERROR``."""
        self._context.events.add(self.snapshot.uid, level, stage, content)

    def say_ready(self, stage: Stage, content: str) -> None:
        """Tell those who follow its launch that it is over."""
        model = views.description(self.snapshot, self._engine)
        self._context.events.add(self.snapshot.uid, "READY", stage, content, model=model)

    def fail(self, problem: Problem) -> None:
        """It has failed, also for the next server."""
        uid = self.snapshot.uid
        self.show(Status.ERROR, Stage.FAILED)
        self._context.store.set_problem(uid, problem)
        self._context.events.add(uid, "FAILED", problem.stage or Stage.FAILED, problem.cause, problem=problem)
