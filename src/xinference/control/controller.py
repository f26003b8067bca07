"""The controller: restores the stored deployments, and launches, terminates and lists deployments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
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
from xinference.control.stop_notice import StopNotice
from xinference.control.weights_store import WeightsStore
from xinference.deployments import progress
from xinference.deployments.admission import Admission
from xinference.deployments.adoption import adopt_running, end_adopted, launch_of
from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.deployment import BrokenDeployment, Deployment
from xinference.deployments.snapshot import Status
from xinference.deployments.views import listing_entry
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem, near, not_found
from xinference.hubs.base import Hub
from xinference.hubs.registry import all_hubs
from xinference.launch.plan import Forecast, LaunchDraft, LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.plan import is_same_launch
from xinference.planning.summary import expectation
from xinference.process.leftovers import keepers_of
from xinference.process.log_files import remove_old_logs
from xinference.process.replica import Replica
from xinference.routing.interfaces import NoLoad, ReplicaLoad
from xinference.routing.table import Route, RoutingTable
from xinference.store.database import DeploymentRow, Store
from xinference.store.event_log import EventLog, final_event
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
        self._hubs: Mapping[str, Hub] = all_hubs(settings)
        self.registrations = Registrations(settings.home, builtin_families())
        work = LongWork(settings.hub_seconds)
        self._files = work.files
        self.downloads = Downloads(self._hubs, self._events, work)
        self.engines: Mapping[str, Engine] = all_engines()
        self._deployments: dict[str, Deployment | BrokenDeployment] = {}
        self._reserved: dict[str, asyncio.Future[None]] = {}
        """The uids of the launches that are being planned; each future ends with its launch."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        """The terminations of deployments, by uid."""
        self._publisher = publisher or Publisher()
        self._admission = Admission(settings, store, load, self._working_deployments)
        self._context = DeploymentContext(
            settings, store, self._events, self._hubs, self.engines, self._publish, load, self._admission, work
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
        for task in self._tasks:
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
        if not row.wanted:
            await end_adopted(adopted.values(), "terminate")
            self._store.remove_deployment(row.uid)
            return
        if row.problem is not None:  # the earlier server was killed while it stopped the engines
            await end_adopted(adopted.values(), "terminate")
            adopted = {}
        launch = await self._launch_of_row(row, adopted.values())
        deployment = Deployment(launch, self._context, row.created, row.problem, adopted=adopted)
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
        count = msgspec.structs.replace(running.request, replica=stored.replica, gpu_idx=stored.gpu_idx)
        return running.with_request(count)

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

    async def launch(self, request: LaunchRequest, *, warnings: Iterable[str] = ()) -> str:
        """Store a deployment and start it; returns its uid. `warnings` are added to its events.

        A repeated launch with the same explicit uid and the same request changes nothing and is not an error.

        Raises:
            Problem: 400, the request can't be served; 409, the uid is taken by another launch.
        """
        running = self._deployments.get((request.model_uid or "").strip())
        derived = await self.planner.resolver.resolve(
            request, running.plan.request if isinstance(running, Deployment) else None
        )
        request, uid = derived.request, self._uid_for(derived.request)
        async with self._reservation(uid):
            draft = await self._draft(derived, uid)
            await self._ended(uid)
            existing = self._deployments.get(uid)
            if isinstance(existing, Deployment) and existing.problem is None:
                if is_same_launch(draft, existing.plan.request):
                    return uid
                raise Problem(
                    Code.MODEL_UID_TAKEN,
                    f"The model UID {uid} is taken by {existing.plan.version.version_id}.",
                    hint=f"Choose another --model-uid, or `xinference terminate --model-uid {uid}` first.",
                )
            launch, sized, forecast = await self._resolve(draft, request)
            if forecast is not None:
                choices = (*launch.draft.choices, expectation(forecast))
                launch = replace(launch, draft=replace(launch.draft, choices=choices))
            if uid in self._deployments:  # one that has failed
                await self.terminate(uid)
            created = time.time()
            await self._add_row(uid, msgspec.json.encode(launch.request).decode(), created)
            try:
                deployment = Deployment(sized or launch, self._context, created)
            except BaseException:
                self._store.remove_deployment(uid)
                raise
            self._deployments[uid] = deployment
            for warning in warnings:
                self._events.add(uid, "WARNING", "plan", warning)
            deployment.begin()
            self._publish()
            return uid

    async def terminate(self, uid: str) -> None:
        """Stop the engines of a deployment and delete it.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self.deployment(uid)
        ending = self._ending.get(uid)
        if ending is None:
            ending = asyncio.create_task(self._end(uid, deployment), name=f"end of {uid}")
            self._ending[uid] = ending
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
        return progress.unknown() if deployment is None else deployment.progress

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self._deployments.get(uid)
        if deployment is None:
            raise self._not_found(uid)
        return deployment

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
        """The events of a deployment until it is ready, has failed or is terminated."""
        return self._follow(self.deployment(uid), uid)

    # -- helpers --------------------------------------------------------------------------------------------

    async def _end(self, uid: str, deployment: Deployment | BrokenDeployment) -> None:
        """End a deployment. Its uid is free only after its engines have exited and its row is removed."""
        try:
            self._store.set_unwanted(uid)
            await deployment.end("terminate")
            self._events.add(uid, "TERMINATED", "stop", "terminated")
            self._store.remove_deployment(uid)
            await self._written(uid)
            del self._deployments[uid]
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

    @contextlib.asynccontextmanager
    async def _reservation(self, uid: str) -> AsyncIterator[None]:
        """Reserve a uid for one launch, after all other launches of this uid, so that equal launches are one."""
        while (other := self._reserved.get(uid)) is not None:
            await asyncio.wait({other})
        done = self._reserved[uid] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._reserved[uid]
            done.set_result(None)

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
        launch = await self.planner.resolve(draft, request)
        engine, model_type = self.engines[launch.engine], launch.version.family.model_type
        await self._files.run(model_names.check_adapters, model_type, engine.adapters(launch))
        model_names.check_free(launch.uid, engine.lora_names(launch), self.table.routes, self._reserved)
        sized = await self.planner.size(launch, request)
        return launch, sized, None if sized else await self.planner.forecast(launch, request)

    def _cache_uses(self) -> Iterator[cache.CacheUse]:
        for uid, deployment in self._deployments.items():
            if isinstance(deployment, Deployment) and deployment.problem is None:
                plan = deployment.plan
                version_id = plan.version.version_id if plan.source else None
                yield cache.CacheUse(f"the model {uid}", version_id, _weights_path(plan))

    def _working_deployments(self) -> list[Deployment]:
        """The deployments that were launched or restored, without those that could not be restored."""
        return [deployment for deployment in self._deployments.values() if isinstance(deployment, Deployment)]

    def _uid_for(self, request: LaunchRequest) -> str:
        taken = (self._deployments.keys() | self.table.routes.keys()) - self._ending.keys()
        return model_names.uid_for(request, taken, self._reserved)

    def _not_found(self, uid: str) -> Problem:
        similar = near(uid, self._deployments)
        running = ", ".join(self._deployments) or "none"
        hint = f"Did you mean {' or '.join(similar)}?" if similar else f"Running models: {running}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code=Code.MODEL_NOT_FOUND)

    def _publish(self) -> None:
        deployments = self._deployments.values()
        self._publisher.publish((d.route, listing_entry(d.uid, d.description)) for d in deployments)


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
