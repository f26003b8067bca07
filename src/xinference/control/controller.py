"""The controller: restores the stored deployments, and launches, terminates and lists deployments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control import model_names
from xinference.control.downloads import Downloads
from xinference.control.kept_launches import KeptLaunch, read_kept
from xinference.control.planner import Planner
from xinference.control.publisher import Publisher
from xinference.control.reservations import Reservations
from xinference.control.same_launch import Found, Launched, find_same, find_similar, launch_key, uid_taken
from xinference.control.stop_notice import StopNotice
from xinference.control.weights_store import WeightsStore
from xinference.deployments import progress
from xinference.deployments.admission import Admission
from xinference.deployments.adoption import adopt_running, end_adopted, launch_of
from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.deployment import BrokenDeployment, Deployment
from xinference.deployments.replica_changes import not_loaded
from xinference.deployments.snapshot import Stage, Status
from xinference.deployments.views import listing_entry
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem, near, not_found
from xinference.hubs.base import Hub
from xinference.hubs.registry import all_hubs
from xinference.launch.comparison import asked_fields, is_same_launch
from xinference.launch.plan import Forecast, LaunchDraft, LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.summary import expectation
from xinference.process.leftovers import keepers_of
from xinference.process.log_files import remove_old_logs
from xinference.process.replica import Replica
from xinference.routing.interfaces import NoLoad, ReplicaLoad
from xinference.routing.table import Route, RoutingTable
from xinference.store.database import DeploymentRow, Store
from xinference.store.event_log import EventLog, final_event, models_log
from xinference.store.launch_history import LaunchHistory
from xinference.weights import cache
from xinference.weights.derivation import DerivedRequest
from xinference.work_threads import LongWork

log = logging.getLogger(__name__)
#: Interval at which changes are written that the store could not take at once.
NOTE_SECONDS = 0.25
#: Pauses between the attempts to store a launch or a termination while another program has locked the store.
LOCK_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)


class Controller:
    """Owns the deployments. Implements `Router` for the gateway; the management API calls the other methods."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        load: ReplicaLoad | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        """`load` counts the requests in flight at each replica; None: there is no gateway."""
        load = load or NoLoad()
        self._store = store
        self._events = EventLog(store)
        self.history = LaunchHistory(store)
        self._hubs: Mapping[str, Hub] = all_hubs(settings)
        self.registrations = Registrations(settings.home, builtin_families())
        work = LongWork(settings.hub_seconds)
        self._files = work.files
        self.downloads = Downloads(self._hubs, self._events, work)
        self.engines: Mapping[str, Engine] = all_engines()
        self._deployments: dict[str, Deployment | BrokenDeployment] = {}
        self._reserved = Reservations()
        """The uids of the launches that are being planned, and of the deployments that are being restarted."""
        self._equal_launches = Reservations()
        """The requests of the launches without a uid that are being planned, so that equal launches are one."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        """The terminations of deployments, by uid."""
        self._coming_aliases: set[str] = set()
        """Aliases that are being given to a deployment."""
        self._reloads: dict[str, asyncio.Task[None]] = {}
        """The last reload of each deployment."""
        self._publisher = publisher or Publisher()
        self._admission = Admission(settings, store, load, self._working_deployments)
        self._context = DeploymentContext(
            settings,
            store,
            self._events,
            self._hubs,
            self.engines,
            self._publish,
            load,
            self._admission,
            work,
            launched=self._note_launched,
            failed=self._note_failed,
        )
        self.planner = Planner(settings, self._hubs, self.engines, self.registrations, self._admission, work)
        self.weights = WeightsStore(
            settings, self._hubs, self.registrations, self.planner, self.downloads, self._cache_uses, work.files
        )
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self.stop_notice = StopNotice()
        """Ends the waits of the management API when the server begins to stop."""

    # -- for the gateway ------------------------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        return self._publisher.table

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        route = self.table.routes.get(uid)
        existing = self._deployments.get((route.parent or uid) if route else uid)
        deployment = existing if isinstance(existing, Deployment) else None
        with deployment.wait(uid) if deployment else contextlib.nullcontext():
            return await self._publisher.wait_until_ready(uid, time.monotonic() + deadline, deployment, self._not_found)

    # -- start and end --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the stored deployments: adopt running engines, start missing ones, and complete terminations."""
        self.registrations.load()
        rows, known = self._store.deployments(), self._store.replica_ids()
        self._store.remove_other_events(row.uid for row in rows)
        await asyncio.gather(*(self._restore_or_report(row) for row in rows))
        await self._remove_old_logs()
        self._tasks = [
            asyncio.create_task(self._admission.run(), name="admission"),
            asyncio.create_task(self._write_notes(), name="notes of the store"),
            asyncio.create_task(self._warn_of_unknown_engines(known), name="unknown engines"),
        ]

    def begin_stop(self) -> None:
        """Tell everybody who waits for a load, a launch or an event that the server is stopping."""
        self.stop_notice.give()
        self._publisher.end_waits()
        self._events.end_followers()

    async def close(self, how: Ending) -> None:
        """End all tasks; ``stop`` also stops the engines, ``detach`` lets them run on for the next server."""
        for task in (*self._tasks, *self._reloads.values()):
            task.cancel()
        ends = [deployment.end(how) for deployment in self._deployments.values()]
        for result in await asyncio.gather(
            self.downloads.close(), *ends, *self._ending.values(), return_exceptions=True
        ):
            if isinstance(result, Exception):  # the failure of one deployment must not stop the end of the others
                log.error("the end of a deployment or download failed: %r", result)

    async def _restore_or_report(self, row: DeploymentRow) -> None:
        """Restore one deployment. If this fails for any reason, the server starts and serves the others."""
        adopted: dict[str, Replica] = {}
        try:
            # First, because the grace period of a running engine ends with its adoption, which needs no plan.
            adopted = await adopt_running(row.uid, self._store, self._settings, self._context.load)
            await self._restore(row, adopted)
        except Exception as error:
            problem = error if isinstance(error, Problem) else None
            if problem is None:
                log.exception("deployment %s", row.uid)
                problem = Problem(Code.INTERNAL_ERROR, f"A defect in xinference: {error!r}.")
            log.error("deployment %s cannot be restored: %s", row.uid, problem)
            self._deployments[row.uid] = BrokenDeployment(row.uid, problem, row.created, tuple(adopted.values()))
            self._publish()

    async def _restore(self, row: DeploymentRow, adopted: Mapping[str, Replica]) -> None:
        if not row.wanted or (row.problem is not None and not row.ran):
            await end_adopted(adopted.values(), "terminate")
            self.history.ended(row.uid)
            self._store.remove_deployment(row.uid)
            return
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
        )
        self._deployments[row.uid] = deployment
        begun = deployment.begin()
        self._publish()
        await begun  # before the server answers requests, so that its answers include every running engine

    async def _launch_of_row(self, row: DeploymentRow, adopted: Iterable[Replica]) -> ResolvedLaunch:
        """The launch of a row; if it cannot be planned now, the launch of its running replicas.

        Raises:
            Problem: the launch cannot be planned, and no replica runs.
        """
        try:
            # Not sized here: an engine that still runs uses the memory that sizing would measure as free.
            request = _stored_request(row)
            return await self.planner.resolve(await self.planner.draft(request, row.uid), request)
        except Problem as problem:
            running = launch_of(row.uid, adopted, self.engines)
            if running is None:
                raise
            log.warning("%s runs on with its earlier plan, because it cannot be planned now: %s", row.uid, problem)
        try:
            stored = _stored_request(row)
        except Problem:
            self._store.note_request(row.uid, msgspec.json.encode(running.request).decode())
            return running
        # The row has the later changes.
        changed = {name: getattr(stored, name) for name in ("replica", "gpu_idx", "aliases")}
        return running.with_request(msgspec.structs.replace(running.request, **changed))

    async def _remove_old_logs(self) -> None:
        in_use = {path for deployment in self._deployments.values() for path in deployment.log_paths}
        await asyncio.to_thread(remove_old_logs, self._settings.log_dir, in_use)

    async def _write_notes(self) -> None:
        """Write the delayed changes of the store; log once if the database file was deleted or replaced."""
        lost = False
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            self._store.write_notes()
            if not lost and (lost := self._store.is_replaced()):
                log.error(
                    "the database was deleted or replaced while the server runs: "
                    "the next server will have neither its models nor its API keys"
                )

    async def _warn_of_unknown_engines(self, known: Collection[str]) -> None:
        """Log the engines of this home without a row: the database was lost, or replaced by an older one."""
        marked = await asyncio.to_thread(keepers_of, self._settings.run_dir)
        if unknown := {name: pids for name, pids in marked.items() if name not in known}:
            log.warning(
                "engines without a row in the database run: %s. They end %g s after the end of their server; if the "
                "database was lost, its API keys are lost, too.",
                "; ".join(f"{name} (pids {', '.join(map(str, pids))})" for name, pids in sorted(unknown.items())),
                self._settings.grace_seconds,
            )

    # -- for the management API -----------------------------------------------------------------------------

    async def plan(self, request: LaunchRequest) -> tuple[ResolvedLaunch, SizedPlan | None, Forecast | None]:
        """Plan a launch without starting it: its size, or the forecast if the weights are not on this machine.

        Raises:
            Problem: 400, the request can't be served, or does not fit; 507 ``disk_full``.
        """
        derived = await self.planner.resolver.resolve(request)
        draft = await self._draft(derived, self._uid_for(derived.request))
        return await self._resolve(draft, derived.request)

    async def launch(self, request: LaunchRequest, *, new: bool = False, warnings: Iterable[str] = ()) -> Launched:
        """Store a deployment and start it; `warnings` are added to its events.

        A request for the same model as an earlier one launches nothing: the deployment that exists is returned, and is
        started again if it is unloaded or has failed. `new`: launch a copy.

        Raises:
            Problem: 400, the request can't be served; 409, the uid is taken by another launch.
        """
        request = msgspec.structs.replace(request, asked=asked_fields(request))
        similar = None if new else find_similar(request, self._working_deployments())
        derived = await self.planner.resolver.resolve(request, similar)
        request = derived.request
        draft = await self._draft(derived, request.model_uid or request.model_name)
        if new or request.model_uid is not None:
            return await self._launch_as(self._uid_for(request, is_copy=new), draft, request, warnings)
        async with self._equal_launches.hold(launch_key(draft)):
            ending = self._ending
            same = find_same(draft, (each for each in self._working_deployments() if each.uid not in ending))
            return await self._launch_as(same or self._uid_for(request), draft, request, warnings)

    async def _launch_as(
        self, uid: str, draft: LaunchDraft, request: LaunchRequest, warnings: Iterable[str]
    ) -> Launched:
        """Launch a draft under this uid, or return its deployment if it is the same launch.

        Raises:
            Problem: as `launch`.
        """
        draft, found = draft.with_uid(uid), None
        async with self._reserved.hold(uid):
            await self._ended(uid)
            existing = self._deployments.get(uid)
            if isinstance(existing, Deployment):
                is_same = is_same_launch(draft.request, existing.plan.request)
                if existing.problem is None and not is_same:
                    raise uid_taken(draft.request, existing.plan)
                if existing.problem is None:
                    await self._add_aliases(existing, request.aliases)
                if existing.problem is None and not existing.snapshot.unloaded:
                    return Launched(uid, Found.LAUNCHING if existing.launching else Found.RUNNING)
                if existing.problem is None:
                    await self._start_again(existing)
                    return Launched(uid, Found.UNLOADED)
                found = Found.FAILED if is_same else None
            launch, sized, forecast = await self._resolve(draft, request)
            if forecast is not None:
                choices = (*launch.draft.choices, expectation(forecast))
                launch = replace(launch, draft=replace(launch.draft, choices=choices))
            if uid in self._deployments:  # one that has failed
                await self.terminate(uid)
            created, stored = time.time(), msgspec.json.encode(launch.request).decode()
            await self._add_row(uid, stored, created)
            try:
                self._check_names(launch)  # again: another launch may have got them meanwhile
                deployment = Deployment(sized or launch, self._context, created)
            except BaseException:
                self._store.remove_deployment(uid)
                raise
            self.history.begun(uid, stored, created)
            self._deployments[uid] = deployment
            models_log.info("%s: launched as %s on %s", uid, launch.version.version_id, launch.engine)
            for warning in warnings:
                self._events.add(uid, "WARNING", "plan", warning)
            deployment.begin()
            self._publish()
            return Launched(uid, found)

    async def set_aliases(self, uid: str, aliases: Iterable[str]) -> None:
        """Give a deployment these further names in place of its earlier ones.

        Raises:
            Problem: 404; 400, an alias is invalid; 409, an alias is taken, or the deployment has failed.
        """
        deployment, names = self.running(uid), tuple(dict.fromkeys(aliases))
        model_names.check_aliases(uid, names, self.table.routes, {*self._reserved, *self._coming_aliases})
        coming = set(names) - set(deployment.plan.request.aliases)
        self._coming_aliases |= coming
        try:
            await deployment.set_aliases(names)
        finally:
            self._coming_aliases -= coming

    async def unload(self, uid: str) -> None:
        """Stop the engines of a deployment after their last answers; its row stays.

        A model on demand is loaded again by its next request, another one by `load`.

        Raises:
            Problem: 404; 409, the model is being loaded.
        """
        deployment = self.running(uid)
        if deployment.problem is None:  # the engines of a failed deployment have ended
            await deployment.unload()

    async def load(self, uid: str, *, wait: bool = True) -> None:
        """Load a model that is unloaded, or start one that has failed; `wait`: until a model on demand is loaded.

        Raises:
            Problem: 404; the model cannot be planned; or a model on demand cannot be loaded.
        """
        deployment = self.deployment(uid)
        if not isinstance(deployment, Deployment) or deployment.problem is not None or deployment.snapshot.unloaded:
            await self.restart(uid)
        elif deployment.plan.request.on_demand:
            loading = self.ensure_ready(uid, self._settings.on_demand_wait_seconds)
            if wait:
                await loading
            else:
                self._tasks.append(asyncio.create_task(_without_answer(loading), name=f"load of {uid}"))

    async def restart(
        self, uid: str, change: Callable[[LaunchRequest], LaunchRequest] | None = None, *, seconds: float | None = None
    ) -> None:
        """Stop a deployment after its last answers and start it again, or start one that is unloaded or has failed.

        Args:
            change: makes the new request of the stored one.
            seconds: maximum time for the last answers; None: `drain_seconds`.

        Raises:
            Problem: 404; the model cannot be planned; 409, it is being loaded. It runs on as before then.
        """
        self.deployment(uid)
        async with self._reserved.hold(uid):
            await self._ended(uid)
            await self._start_again(self.deployment(uid), change, seconds)

    async def reload(self, uid: str, options: Mapping[str, Any], seconds: float) -> None:
        """Begin a restart with these engine options in place of earlier ones; None removes an option.

        Raises:
            Problem: 404; 400, the options are not valid; 409, the model is being loaded or reloaded.
        """
        if (running := self._reloads.get(uid)) is not None and not running.done():
            raise Problem(Code.NOT_RUNNING, f"{uid} is being reloaded.", hint="Retry when it is ready.")

        def change(request: LaunchRequest) -> LaunchRequest:
            merged = {name: value for name, value in {**request.options, **options}.items() if value is not None}
            return msgspec.structs.replace(request, options=merged, asked={})

        await self._check_reload(uid, change)
        restart = asyncio.create_task(self.restart(uid, change, seconds=seconds), name=f"reload of {uid}")
        restart.add_done_callback(lambda task: task.cancelled() or task.exception())  # `reload_status` reads it
        self._reloads[uid] = restart

    def reload_status(self, uid: str) -> dict[str, Any]:
        """The state of the last reload: ``idle`` if there was none, ``reloading``, ``ready`` or ``error``.

        Raises:
            Problem: 404, with the running models.
        """
        deployment, last = self.deployment(uid), self._reloads.get(uid)
        stage = str(deployment.description["stage"])
        if last is None:
            return {"status": "idle", "stage": stage, "error": None}
        problem = last.exception() if last.done() and not last.cancelled() else deployment.problem
        if problem := problem or deployment.problem:
            return {"status": "error", "stage": stage, "error": str(problem)}
        is_ready = last.done() and not deployment.launching
        return {"status": "ready" if is_ready else "reloading", "stage": stage, "error": None}

    async def terminate(self, uid: str) -> None:
        """Stop the engines of a deployment and delete it.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self.deployment(uid)
        ending = self._ending.get(uid) or self._begin_end(uid, deployment)
        await asyncio.shield(ending)  # a client that disconnects does not interrupt the termination

    async def cancel(self, uid: str) -> None:
        """Cancel a launch that is not ready; each client that waits for it gets the error.

        Raises:
            Problem: 404; 409 ``not_launching``, the deployment is ready or has failed.
        """
        deployment = self.deployment(uid)
        if not deployment.launching:
            state = "failed" if deployment.problem else "ready"
            hint = f"`xinference terminate --model-uid {uid}` ends it."
            raise Problem(Code.NOT_LAUNCHING, f"{uid} is not being launched: it is {state}.", hint=hint)
        await self.terminate(uid)

    def progress(self, uid: str) -> dict[str, Any]:
        """The progress of a launch in the form of the API; for an unknown uid, no stage has begun."""
        deployment = self._deployments.get(uid)
        if deployment is not None:
            return deployment.progress
        failed = self.history.failure(uid)
        if failed is None or failed.problem is None:
            return progress.unknown()
        return progress.progress(Stage.FAILED, failed.problem.stage or Stage.PENDING, None, (), failed.created)

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self._deployments.get(uid)
        if deployment is None:
            raise self._not_found(uid)
        return deployment

    def uid_of(self, name: str) -> str:
        """The uid of the deployment with this uid or alias; the name itself if there is none."""
        route = self.table.routes.get(name)
        return name if route is None or name in self._deployments or route.parent is not None else route.uid

    def has(self, deployment: Deployment | BrokenDeployment) -> bool:
        """Whether a deployment has not ended."""
        return deployment in self._deployments.values()

    def running(self, uid: str) -> Deployment:
        """One deployment by its uid, which is not a `BrokenDeployment`.

        Raises:
            Problem: 404; or the reason why the stored deployment could not be restored.
        """
        deployment = self.deployment(uid)
        if isinstance(deployment, BrokenDeployment):
            raise deployment.problem
        return deployment

    def deployments(self) -> list[Deployment | BrokenDeployment]:
        """All deployments, oldest first."""
        return sorted(self._deployments.values(), key=lambda d: d.created)

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """All families that can be launched by their name."""
        return self.registrations.families

    def uids_of_family(self, family: str) -> list[str]:
        """The uids of a family's deployments, including the failed ones."""
        return [d.uid for d in self._working_deployments() if d.plan.version.family.model_name == family]

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first."""
        self.deployment(uid)
        return self._events.stored(uid)

    def kept_launches(self) -> list[KeptLaunch]:
        """The launches that the store keeps, oldest first, without those that are being terminated."""
        return [kept for kept in read_kept(self._store.deployments()) if kept.uid not in self._ending]

    def set_restored(self, uid: str, *, restored: bool) -> None:
        """Set whether the next server restores a deployment; it runs on in either case.

        Raises:
            Problem: 404, with the running models; the row cannot be written.
        """
        self.deployment(uid)
        if uid not in self._ending:
            self._store.set_wanted(uid, restored)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until it is ready, has failed or is terminated.

        A launch that has failed may have left the list already; the history has its problem.
        """
        if uid not in self._deployments and (failed := self.history.failure(uid)) and failed.problem:
            return _failure_only(failed.problem)
        return self._follow(self.deployment(uid), uid)

    # -- for deployments ------------------------------------------------------------------------------------

    def _note_launched(self, uid: str) -> None:
        """Store that a launch is complete: its deployment stays in the list, whatever happens."""
        self._store.note_ran(uid)
        self.history.ready(uid)

    def _note_failed(self, uid: str) -> None:
        """Store a failure in the history. A launch that has never run leaves the list of deployments."""
        deployment = self._deployments.get(uid)
        if isinstance(deployment, Deployment):
            self.history.ended(uid, deployment.problem)
            if not deployment.snapshot.ran and uid not in self._ending:
                self._begin_end(uid, deployment)

    # -- helpers --------------------------------------------------------------------------------------------

    async def _start_again(
        self,
        deployment: Deployment | BrokenDeployment,
        change: Callable[[LaunchRequest], LaunchRequest] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Replace a deployment by one of its stored request; the caller has reserved its uid.

        Raises:
            Problem: as `restart`.
        """
        uid, failed = deployment.uid, deployment.problem is not None
        request = self._request_of(deployment)
        if change is not None:
            request = change(request)
        launch = await self._resolve_only(await self.planner.draft(request, uid), request)
        if isinstance(deployment, Deployment) and not failed:
            await deployment.unload(for_restart=True, seconds=seconds)
        self._check_not_ending(deployment)
        await deployment.end("terminate")
        self._check_not_ending(deployment)
        stored = msgspec.json.encode(launch.request).decode()
        self._store.note_restart(uid, stored)
        self._events.clear(uid)
        if failed:
            self.history.begun(uid, stored, time.time())
        replacement = Deployment(launch, self._context, deployment.created, ran=True, restarting=not failed)
        self._deployments[uid] = replacement
        replacement.begin()
        self._publish()

    async def _check_reload(self, uid: str, change: Callable[[LaunchRequest], LaunchRequest]) -> None:
        """Check that a deployment can be restarted with a changed request.

        Raises:
            Problem: as `reload`.
        """
        deployment = self.running(uid)
        if deployment.problem is None and deployment.launching:
            raise not_loaded(uid, deployment.snapshot.stage)
        await self.planner.draft(change(deployment.plan.request), uid)

    def _request_of(self, deployment: Deployment | BrokenDeployment) -> LaunchRequest:
        """The request of a deployment.

        Raises:
            Problem: 500 ``unreadable_row``.
        """
        if isinstance(deployment, Deployment):
            return deployment.plan.request
        row = next((row for row in self._store.deployments() if row.uid == deployment.uid), None)
        if row is None:
            raise self._not_found(deployment.uid)
        return _stored_request(row)

    def _check_not_ending(self, deployment: Deployment | BrokenDeployment) -> None:
        """Raise a Problem if a deployment is terminated meanwhile."""
        if deployment.uid in self._ending or not self.has(deployment):
            raise Problem(Code.LAUNCH_CANCELLED, f"{deployment.uid} was terminated.", hint="Launch it again.")

    def _begin_end(self, uid: str, deployment: Deployment | BrokenDeployment) -> asyncio.Task[None]:
        ending = self._ending[uid] = asyncio.create_task(self._end(uid, deployment), name=f"end of {uid}")
        return ending

    async def _end(self, uid: str, deployment: Deployment | BrokenDeployment) -> None:
        """End a deployment. Its uid is free only after its engines have exited and its row is removed."""
        try:
            self._store.set_unwanted(uid)
            await deployment.end("terminate")
            self._events.add(uid, "TERMINATED", "stop", "terminated")
            self.history.ended(uid)
            self._store.remove_deployment(uid)
            await self._written(uid)
            del self._deployments[uid]
            self._reloads.pop(uid, None)
            self._publish()
        finally:
            del self._ending[uid]
        await self._remove_old_logs()

    async def _written(self, uid: str) -> None:
        """Wait for a while until a termination is stored: until then, the next server would run the model again.

        The engines have ended already. A disk that stays full does not keep the termination from being answered.
        """
        for pause in LOCK_PAUSES:
            if self._store.write_notes():
                return
            await asyncio.sleep(pause)
        if not self._store.write_notes():
            log.warning("the termination of %s is not stored yet: a server that starts now runs it again", uid)

    async def _ended(self, uid: str) -> None:
        """Wait until no deployment of this uid is being terminated."""
        while (ending := self._ending.get(uid)) is not None:
            await asyncio.wait({ending})

    async def _add_row(self, uid: str, request: str, created: float) -> None:
        """Store a launch; retried for some time if another program has locked the store.

        Raises:
            Problem: the row cannot be written.
        """
        for pause in LOCK_PAUSES:
            try:
                self._store.add_deployment(uid, request, created)
                return
            except Problem as problem:
                if problem.code != Code.STORE_BUSY:
                    raise
            await asyncio.sleep(pause)
        self._store.add_deployment(uid, request, created)

    async def _follow(self, deployment: Deployment | BrokenDeployment, uid: str) -> AsyncIterator[dict[str, Any]]:
        # Read when the iteration starts: a deployment that has ended since the call sends no further event.
        settled: dict[str, Any] | None = None
        if deployment.problem is not None:
            settled = final_event("FAILED", deployment.problem.cause) | {"problem": deployment.problem.to_dict()}
        elif deployment.ready or deployment.status is Status.UNLOADED:
            settled = final_event("READY", "ready") | {"model": deployment.description}
        async for event in self._events.follow(uid, settled):
            yield event

    async def _draft(self, derived: DerivedRequest, uid: str) -> LaunchDraft:
        """The draft of a derived request, with the reasons of both."""
        draft = await self.planner.draft(derived.request, uid)
        reasons, choices = (*derived.reasons, *draft.reasons), (*derived.choices, *draft.choices)
        return replace(draft, reasons=reasons, choices=choices)

    async def _resolve(
        self, draft: LaunchDraft, request: LaunchRequest
    ) -> tuple[ResolvedLaunch, SizedPlan | None, Forecast | None]:
        """The resolved launch with its sized plan, or with a forecast if the weights are not on this machine.

        Raises:
            Problem: the launch does not fit; no byte of the weights is fetched.
        """
        launch = await self._resolve_only(draft, request)
        sized = await self.planner.size(launch, request)
        return launch, sized, None if sized else await self.planner.forecast(launch, request)

    async def _resolve_only(self, draft: LaunchDraft, request: LaunchRequest) -> ResolvedLaunch:
        """The resolved launch, whose names are free; not sized, because its own engine may still use the memory."""
        launch = await self.planner.resolve(draft, request)
        engine, model_type = self.engines[launch.engine], launch.version.family.model_type
        await self._files.run(model_names.check_adapters, model_type, engine.adapters(launch))
        self._check_names(launch)
        return launch

    def _check_names(self, launch: ResolvedLaunch) -> None:
        """Check that the uid, the adapters and the aliases of a launch are names of no other deployment.

        Raises:
            Problem: 400, a name is invalid; 409, it is taken.
        """
        uid, routes, reserved = launch.uid, self.table.routes, {*self._reserved, *self._coming_aliases}
        if uid in self._coming_aliases:
            raise Problem(Code.MODEL_UID_TAKEN, f"The model UID {uid} becomes an alias.", hint="Choose another name.")
        model_names.check_free(uid, self.engines[launch.engine].lora_names(launch), routes, reserved)
        model_names.check_aliases(uid, launch.request.aliases, routes, reserved)

    def _cache_uses(self) -> Iterator[cache.CacheUse]:
        for uid, deployment in self._deployments.items():
            if isinstance(deployment, Deployment) and deployment.problem is None:
                plan = deployment.plan
                version_id = plan.version.version_id if plan.source else None
                yield cache.CacheUse(f"the model {uid}", version_id, _weights_path(plan))

    def _working_deployments(self) -> list[Deployment]:
        """The deployments that were launched or restored, without those that could not be restored."""
        return [deployment for deployment in self._deployments.values() if isinstance(deployment, Deployment)]

    def _uid_for(self, request: LaunchRequest, *, is_copy: bool = False) -> str:
        taken = (self._deployments.keys() | self.table.routes.keys()) - self._ending.keys()
        return model_names.uid_for(request, taken, {*self._reserved, *self._coming_aliases}, is_copy=is_copy)

    async def _add_aliases(self, deployment: Deployment, aliases: Iterable[str]) -> None:
        """Add the aliases of a repeated launch to those of its deployment."""
        existing = deployment.plan.request.aliases
        if missing := [alias for alias in aliases if alias not in existing]:
            await self.set_aliases(deployment.uid, (*existing, *missing))

    def _not_found(self, uid: str) -> Problem:
        if (owner := self.uid_of(uid)) != uid:
            cause = f"{uid!r} is an alias of {owner}, and this needs its uid."
            return not_found(cause, hint=f"Use {owner}.", code=Code.MODEL_NOT_FOUND)
        failed = self.history.failure(uid)
        if failed is not None and failed.problem is not None:
            cause = f"There is no running model {uid!r}: its launch has failed."
            hint = f"{failed.problem.cause} `xinference history` has the details."
            return not_found(cause, hint=hint, code=Code.MODEL_NOT_FOUND)
        similar = near(uid, self._deployments)
        running = ", ".join(self._deployments) or "none"
        hint = f"Did you mean {' or '.join(similar)}?" if similar else f"Running models: {running}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code=Code.MODEL_NOT_FOUND)

    def _publish(self) -> None:
        deployments = self._deployments.values()
        self._publisher.publish((d.route, listing_entry(d.uid, d.description)) for d in deployments)


async def _without_answer(loading: Awaitable[object]) -> None:
    """Wait for a load that no caller waits for; its events have its problem."""
    with contextlib.suppress(Problem):
        await loading


async def _failure_only(problem: Problem) -> AsyncIterator[dict[str, Any]]:
    yield final_event("FAILED", problem.cause) | {"problem": problem.to_dict()}


def _stored_request(row: DeploymentRow) -> LaunchRequest:
    """The request of a row.

    Raises:
        Problem: 500 ``unreadable_row``.
    """
    try:
        return msgspec.json.decode(row.request, type=LaunchRequest)
    except msgspec.MsgspecError as error:
        raise Problem(
            Code.UNREADABLE_ROW, f"The stored request of {row.uid} can't be read: {error}.", hint="Launch it again."
        ) from None


def _weights_path(plan: LaunchPlan) -> Path | None:
    """The path of a launch's weights; None: they are not fetched yet."""
    if isinstance(plan, SizedPlan):
        return plan.path
    return plan.origin if isinstance(plan.origin, Path) else None
