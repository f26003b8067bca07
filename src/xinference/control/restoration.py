"""The restoration of the stored deployments at the start of the server: adopts running engines, starts missing ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec

from xinference.config import Settings
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.kept_launches import stored_request
from xinference.control.model_names import is_valid
from xinference.control.planner import Planner
from xinference.deployments.adoption import adopt_running, end_adopted, launch_of
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem, defect
from xinference.launch.plan import ResolvedLaunch
from xinference.nodes.node import ReplicaLike
from xinference.process.leftovers import keepers_of
from xinference.store.database import DeploymentRow, Store
from xinference.store.launch_history import LaunchHistory

log = logging.getLogger(__name__)


class Restoration:
    """Makes the deployments equal to the rows of the store."""

    def __init__(
        self,
        registry: DeploymentRegistry,
        planner: Planner,
        context: DeploymentContext,
        history: LaunchHistory,
    ) -> None:
        self._registry = registry
        self._planner = planner
        self._context = context
        self._store: Store = context.store
        self._settings: Settings = context.settings
        self._history = history

    async def restore(self) -> None:
        """Restore all rows. What fails to restore is a `BrokenDeployment`; terminations are completed.

        Raises:
            Problem: the rows cannot be read.
        """
        rows = self._store.deployments()
        self._store.remove_other_events(row.uid for row in rows)
        await asyncio.gather(*(self._restore_or_report(row) for row in rows))

    async def warn_of_unknown_engines(self, known: Collection[str]) -> None:
        """Log the engines of this home without a row: the database was lost, or replaced by an older one.

        Args:
            known: the ids of the replicas that the store had when the server started.
        """
        marked = await asyncio.to_thread(keepers_of, self._settings.run_dir)
        if unknown := {name: pids for name, pids in marked.items() if name not in known}:
            log.warning(
                "engines without a row in the database run: %s. They end %g s after the end of their server; if the "
                "database was lost, its API keys are lost, too.",
                "; ".join(f"{name} (pids {', '.join(map(str, pids))})" for name, pids in sorted(unknown.items())),
                self._settings.grace_seconds,
            )

    async def _restore_or_report(self, row: DeploymentRow) -> None:
        """Restore one deployment. If this fails for any reason, the server starts and serves the others."""
        adopted: dict[str, ReplicaLike] = {}
        try:
            # First, because the grace period of a running engine ends with its adoption, which needs no plan.
            adopted = await adopt_running(row.uid, self._store, self._context.nodes)
            await self._restore(row, adopted)
        except Exception as error:  # a defect, too: the other deployments are restored in any case
            problem = error if isinstance(error, Problem) else None
            if problem is None:
                log.exception("deployment %s", row.uid)
                problem = defect(error)
            log.error("deployment %s cannot be restored: %s", row.uid, problem)
            self._registry.add(BrokenDeployment(row.uid, problem, row.created, tuple(adopted.values())))
            self._registry.publish()

    async def _restore(self, row: DeploymentRow, adopted: Mapping[str, ReplicaLike]) -> None:
        if not row.wanted or (row.problem is not None and not row.ran):
            await end_adopted(adopted.values(), "terminate")
            self._history.ended(row.uid)
            self._store.remove_deployment(row.uid)
            return
        if not is_valid(row.uid):  # names of files and of routes contain it
            raise Problem(
                Code.UNREADABLE_ROW, f"The stored model UID {row.uid!r} is invalid.", hint="Launch the model again."
            )
        if row.problem is not None:  # the earlier server was killed while it stopped the engines
            await end_adopted(adopted.values(), "terminate")
            adopted = {}
        launch = await self._launch_of_row(row, adopted.values())
        deployment = Deployment(
            launch,
            self._context,
            row.created,
            row.problem,
            adopted=adopted,
            ran=row.ran or bool(adopted),
            unloaded=row.unloaded,
            restored=True,
        )
        self._registry.add(deployment)
        begun = deployment.begin()
        self._registry.publish()
        await begun  # before the server answers requests, so that its answers include every running engine

    async def _launch_of_row(self, row: DeploymentRow, adopted: Iterable[ReplicaLike]) -> ResolvedLaunch:
        """The launch of a row; if it cannot be planned now, the launch of its running replicas.

        Raises:
            Problem: the launch cannot be planned, and no replica runs.
        """
        try:
            # Not sized here: an engine that still runs uses the memory that sizing would measure as free.
            request = stored_request(row)
            return await self._planner.resolve(await self._planner.draft(request, row.uid), request)
        except Problem as problem:
            running = launch_of(row.uid, adopted, self._context.engines)
            if running is None:
                raise
            log.warning("%s runs on with its earlier plan, because it cannot be planned now: %s", row.uid, problem)
        try:
            stored = stored_request(row)
        except Problem:
            self._store.note_request(row.uid, msgspec.json.encode(running.request).decode())
            return running
        # The row has the later changes.
        changed = {name: getattr(stored, name) for name in ("replica", "gpu_idx", "aliases")}
        return running.with_request(msgspec.structs.replace(running.request, **changed))
