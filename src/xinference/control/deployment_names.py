"""The names of deployments: their uids, aliases and adapters, each of which belongs to one deployment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xinference.control import model_names
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.publisher import Publisher
from xinference.control.reservations import Reservations
from xinference.control.terminations import Terminations
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.work_threads import WorkThreads


class DeploymentNames:
    """Chooses the uids of launches, and refuses names that are taken."""

    def __init__(
        self,
        registry: DeploymentRegistry,
        publisher: Publisher,
        terminations: Terminations,
        engines: Mapping[str, Engine],
        files: WorkThreads,
    ) -> None:
        self._registry = registry
        self._publisher = publisher
        self._terminations = terminations
        self._engines = engines
        self._files = files
        self.reserved_uids = Reservations()
        """The uids of the launches that are being planned, and of the deployments that are being restarted."""
        self._coming_aliases: set[str] = set()
        """Aliases that are being given to a deployment."""

    def uid_for(self, request: LaunchRequest, *, is_copy: bool = False) -> str:
        """The uid of a launch: the requested one, or one that is free. The uid of an ending deployment is free.

        Raises:
            Problem: 400, the uid is invalid.
        """
        taken = set(self._registry.names()).difference(self._terminations.uids)
        return model_names.uid_for(request, taken, self._reserved(), is_copy=is_copy)

    async def check(self, launch: ResolvedLaunch) -> None:
        """Check that the adapters of a launch exist, and that all its names are free.

        Raises:
            Problem: 400, an adapter does not exist or a name is invalid; 409, a name is taken.
        """
        engine, model_type = self._engines[launch.engine], launch.version.family.model_type
        await self._files.run(model_names.check_adapters, model_type, engine.adapters(launch))
        self.check_free(launch)

    def check_free(self, launch: ResolvedLaunch) -> None:
        """Check that the uid, the adapters and the aliases of a launch are names of no other deployment.

        Raises:
            Problem: 400, a name is invalid; 409, it is taken.
        """
        uid, routes, reserved = launch.uid, self._publisher.table.routes, self._reserved()
        if uid in self._coming_aliases:
            raise Problem(Code.MODEL_UID_TAKEN, f"The model UID {uid} becomes an alias.", hint="Choose another name.")
        model_names.check_free(uid, self._engines[launch.engine].lora_names(launch), routes, reserved)
        model_names.check_aliases(uid, launch.request.aliases, routes, reserved)

    async def set_aliases(self, uid: str, aliases: Iterable[str]) -> None:
        """Give a deployment these further names in place of its earlier ones.

        Raises:
            Problem: 404; 400, an alias is invalid; 409, an alias is taken, or the deployment has failed.
        """
        deployment, names = self._registry.running(uid), tuple(dict.fromkeys(aliases))
        model_names.check_aliases(uid, names, self._publisher.table.routes, self._reserved())
        coming = set(names) - set(deployment.plan.request.aliases)
        self._coming_aliases |= coming
        try:
            await deployment.set_aliases(names)
        finally:
            self._coming_aliases -= coming

    async def add_aliases(self, uid: str, aliases: Iterable[str]) -> None:
        """Add the aliases of a repeated launch to those of its deployment.

        Raises:
            Problem: as `set_aliases`.
        """
        existing = self._registry.running(uid).plan.request.aliases
        if missing := [alias for alias in aliases if alias not in existing]:
            await self.set_aliases(uid, (*existing, *missing))

    def _reserved(self) -> set[str]:
        return {*self.reserved_uids, *self._coming_aliases}
