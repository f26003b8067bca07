"""Writes the store on behalf of launches and terminations; retries while another program has locked the database."""

from __future__ import annotations

import asyncio
import logging

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.store.database import Store

log = logging.getLogger(__name__)
#: Interval at which changes are written that the store could not take at once.
NOTE_SECONDS = 0.25
#: Pauses between the attempts to store a launch or a termination while another program has locked the store.
LOCK_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)


class StoreWriter:
    """Retries what must be stored now, and writes the delayed changes at intervals."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_replaced = False
        """The log says that the database file was deleted or replaced."""

    async def run(self) -> None:
        """Write the delayed changes until the task is cancelled."""
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            self.write_notes()

    def write_notes(self) -> None:
        """Write the delayed changes; log once if the database file was deleted or replaced."""
        self._store.write_notes()
        if not self._is_replaced and self._store.is_replaced():
            self._is_replaced = True
            log.error(
                "the database was deleted or replaced while the server runs: "
                "the next server will have neither its models nor its API keys"
            )

    async def add_deployment(self, uid: str, request: str, created: float) -> None:
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

    async def remove_deployment(self, uid: str) -> None:
        """Remove a row, and wait for a while until this is stored: before that, the next server runs the model again.

        The engines have ended already. A disk that stays full does not keep the termination from being answered.
        """
        self._store.remove_deployment(uid)
        for pause in LOCK_PAUSES:
            if self._store.write_notes():
                return
            await asyncio.sleep(pause)
        if not self._store.write_notes():
            log.warning("the termination of %s is not stored yet: a server that starts now runs it again", uid)
