"""The record of a deployment that its owner writes: snapshot, row and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from xinference.deployments import views
from xinference.deployments.context import DeploymentContext
from xinference.deployments.on_demand import terms_of
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import DeploymentSnapshot, Stage, Status
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan


class Record:
    """Replaces and publishes the snapshot, and writes the row and the events."""

    def __init__(
        self, context: DeploymentContext, engine: Engine, replicas: ReplicaSet, first: DeploymentSnapshot
    ) -> None:
        self._context = context
        self._engine = engine
        self._replicas = replicas
        self.snapshot = first
        self.change()

    def change(self, **changes: Any) -> None:
        """Replace the snapshot by one with these fields and the current views of the replicas."""
        plan: LaunchPlan = changes.get("plan", self.snapshot.plan)
        self.snapshot = replace(
            self.snapshot,
            replicas=self._replicas.views(plan.request.replica),
            last_log=self._replicas.last_log,
            crashes=self._replicas.crashes,
            **changes,
        )

    def publish(self, **changes: Any) -> None:
        """Change the snapshot, publish a new routing table and notify the admission."""
        self.change(**changes)
        self._context.publish()
        self._context.admission.changed()

    def end_launch(self) -> None:
        """Record that the launch is complete: the model can answer requests, or be loaded by them."""
        if self.snapshot.launching or not self.snapshot.ran:
            self._context.launched(self.snapshot.uid)
        self.change(launching=False, ran=True, restarting=False)

    def publish_status(self, status: Status, stage: Stage) -> None:
        """Publish a new status and stage."""
        self.publish(status=status, stage=stage)

    def set_replicas(self, plan: SizedPlan, *, refusable: bool = True) -> None:
        """Store the changed number of replicas, and reserve the memory of `plan`.

        The row is written first: a server that starts afterwards runs the new number of replicas. A change that is
        not `refusable` has happened already; its row is written when the store can be written.

        Raises:
            Problem: the change is refusable, and the row cannot be written.
        """
        uid, store = self.snapshot.uid, self._context.store
        write = store.set_request if refusable else store.note_request
        write(uid, msgspec.json.encode(plan.request).decode())
        self.hold_replicas(plan)

    def hold_replicas(self, plan: SizedPlan) -> None:
        """Reserve the memory of a changed number of replicas, and leave the stored number as it is."""
        self.change(plan=plan)
        self._context.admission.hold(self.snapshot.uid, plan)

    def set_aliases(self, aliases: tuple[str, ...]) -> None:
        """Store and publish the further names of the deployment.

        Raises:
            Problem: the row cannot be written.
        """
        plan = self._stored(aliases=aliases)
        self.publish(plan=plan)

    def set_terms(self, changes: Mapping[str, Any]) -> None:
        """Store and publish changed conditions for the unload of a model on demand.

        Args:
            changes: fields of the launch request: `ttl`, `pin`, `priority`.

        Raises:
            Problem: the row cannot be written.
        """
        plan = self._stored(**changes)
        self.publish(plan=plan, terms=terms_of(plan.request, self._context.settings))

    def _stored(self, **fields: Any) -> LaunchPlan:
        """Store changed fields of the launch request; the plan with them."""
        plan = self.snapshot.plan
        request = msgspec.structs.replace(plan.request, **fields)
        self._context.store.set_request(self.snapshot.uid, msgspec.json.encode(request).decode())
        return plan.with_request(request)

    # -- events -----------------------------------------------------------------------------------------------

    def add_event(self, stage: Stage, content: str, *, level: str = "INFO") -> None:
        """Add an event; `level` is ``INFO``, ``WARNING`` or ``ERROR``."""
        self._context.events.add(self.snapshot.uid, level, stage, content)

    def add_ready_event(self, stage: Stage, content: str) -> None:
        """Add the ``READY`` event, which ends the event streams of the launch."""
        model = views.description(self.snapshot, self._engine)
        self._context.events.add(self.snapshot.uid, "READY", stage, content, model=model)

    def fail(self, problem: Problem) -> None:
        """Publish and store the failure of the deployment, and add its ``FAILED`` event."""
        uid = self.snapshot.uid
        self.publish_status(Status.ERROR, Stage.FAILED)
        self._context.store.set_problem(uid, problem)
        self._context.events.add(uid, "FAILED", problem.stage or Stage.FAILED, problem.cause, problem=problem)
        self._context.failed(uid)
