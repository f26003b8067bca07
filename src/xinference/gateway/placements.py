"""The placements of requests at replicas whose engine saves the states of prompts.

The gateway makes one for each such replica. All that is specific to an engine is behind `RequestPlacement`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from prometheus_client.core import Metric

from xinference.config import Settings
from xinference.engines.dialects import dialect_of
from xinference.engines.request_placement import ModelStates, Placed, RequestPlacement, StateLimits
from xinference.files import state_folders
from xinference.gateway.http.asgi import JSON_TYPE
from xinference.gateway.http.engine_pool import EnginePool
from xinference.gateway.priority import NORMAL
from xinference.gateway.state_metrics import state_metrics
from xinference.routing.table import Route, Target

log = logging.getLogger(__name__)

#: Time after a replica's end at which its model is looked up: a restarted engine has begun by then.
LOOK_UP_SECONDS = 5.0


class Placements:
    """The placements of all replicas, and the states of their models."""

    def __init__(self, settings: Settings, pool: EnginePool, routes: Callable[[], Mapping[str, Route]]) -> None:
        self._settings = settings
        self._pool = pool
        self._routes = routes
        self._models: dict[str, ModelStates] = {}
        self._replicas: dict[str, tuple[Target, str, RequestPlacement]] = {}
        self._off: set[str] = set()
        """The models whose folders can't be used."""
        self.is_on = settings.saves_states

    async def place(
        self, path: str, body: bytes, client: str, route: Route, target: Target, priority: int = NORMAL
    ) -> Placed | None:
        """Place a request at a replica; None: it is sent as it is.

        Raises:
            EngineUnreachableError, EngineDiedError: as for the request itself.
        """
        placement = self._placement(route, target)
        if placement is None:
            return None

        async def ask(path: str, query: bytes, body: bytes) -> tuple[int, bytes]:
            return await self._ask(target, path, query, body)

        return await placement.place(path, body, client, ask, priority)

    async def metrics(self) -> list[Metric]:
        """The figures of each model that has saved states, for Prometheus."""
        return list(state_metrics({uid: states.figures for uid, states in self._models.items()}))

    def forget(self, replica_id: str) -> None:
        """A replica has exited."""
        known = self._replicas.pop(replica_id, None)
        if known is not None:
            asyncio.get_running_loop().call_later(LOOK_UP_SECONDS, self._release, known[1])

    def close(self) -> None:
        """Delete all states in memory: another server has no index of them."""
        for states in self._models.values():
            states.drop_memory()

    def _release(self, uid: str) -> None:
        """Delete the states of a model that has no replica any more; those on the disk only if the model is gone."""
        route = self._routes().get(uid)
        states = self._models.get(uid)
        if route is not None and (route.targets or route.recovering):
            if states is not None:
                states.set_memory(self._memory_of(uid, route))
            return
        if states is not None:
            states.drop_memory()
        if route is None:
            self._models.pop(uid, None)
            state_folders.remove(self._settings.home, uid)

    def _placement(self, route: Route, target: Target) -> RequestPlacement | None:
        known = self._replicas.get(target.replica_id)
        if known is not None and known[0] == target:
            return known[2]
        now = self._routes().get(route.uid)
        if now is None or target not in now.targets:
            return None  # it is stopped, or has exited: nobody would forget it
        uid = route.parent or route.uid
        states = self._states(uid, route)
        if states is None or not route.slots or target.server_name:
            return None
        placement = states.placement(route.slots)
        self._replicas[target.replica_id] = (target, uid, placement)
        states.set_memory(self._memory_of(uid, route))
        return placement

    def _memory_of(self, uid: str, route: Route) -> int:
        """The maximum of a model's states in memory: what is planned for each of its replicas here."""
        return route.state_bytes * max(1, sum(known == uid for _, known, _ in self._replicas.values()))

    def _states(self, uid: str, route: Route) -> ModelStates | None:
        make = dialect_of(route.engine).make_states
        if make is None or uid in self._off:
            return None
        if uid not in self._models:
            home = self._settings.home
            memory, disk = state_folders.memory_folder(home, uid), state_folders.disk_folder(home, uid)
            try:
                state_folders.make_private(memory)
                state_folders.make_private(disk)
            except OSError as error:
                log.warning("the beginnings of prompts to %r are not shared: %s", uid, error)
                self._off.add(uid)
                return None
            state_folders.delete_files(memory, state_folders.STAMP)
            self._models[uid] = make(
                StateLimits(
                    memory,
                    disk,
                    route.state_bytes,
                    self._settings.kept_state_bytes,
                    self._settings.shared_wait_seconds,
                    by_client=self._settings.prefix_isolation == "key",
                )
            )
        return self._models[uid]

    async def _ask(self, target: Target, path: str, query: bytes, body: bytes) -> tuple[int, bytes]:
        answer = await self._pool.post(target, path, query, (JSON_TYPE,), body)
        try:
            pieces = [answer.first]
            while piece := await answer.read():
                pieces.append(piece)
        finally:
            answer.close()
        return answer.status, b"".join(pieces)
