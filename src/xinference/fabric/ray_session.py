"""The server's end of its driver in a Ray cluster that somebody else has started; `ray_driver` is the other end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from xinference.fabric.frames import UNREADABLE, Answer, Failure
from xinference.fabric.questions import Questions
from xinference.fabric.ray_messages import RayLost, RayState, StartWorker, Wishes, WorkerOrder, WorkerReport
from xinference.fabric.ray_process import RayProcess

log = logging.getLogger(__name__)
#: Maximum time until the driver has found or started a worker.
START_SECONDS = 180.0
_DECODER = msgspec.msgpack.Decoder(RayState | RayLost | Answer | Failure)


class RaySession:
    """What Ray says, and what it is asked for.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        log_file: for what the driver and Ray print.
        changed: called after each change of `state` or `lost`.
    """

    def __init__(self, address: str, log_file: Path, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._questions = Questions()
        self._wishes = Wishes()
        self._driver = RayProcess(
            "xinference.fabric.ray_driver", address, {"RAY_USAGE_STATS_ENABLED": "0"}, log_file, _DECODER,
            self._receive, self._note_started, self._note_ended,
        )  # fmt: skip
        self.state: RayState | None = None
        """None: Ray is not reached."""
        self.lost: RayLost | None = None
        """Why Ray is not reached, if a driver has said so."""

    def start(self) -> None:
        """Keep a driver running from now on."""
        self._driver.start()

    async def close(self) -> None:
        """End the driver, and with it all that is ours in Ray."""
        await self._driver.close()

    async def find_or_start(self, ray_node: str, order: WorkerOrder) -> WorkerReport:
        """Find the worker of a node, or start it if the order has a token. A failure is a refusal of the report."""
        try:
            answer = await self._questions.ask(
                ray_node, lambda number: self._driver.send(StartWorker(number, ray_node, order)), START_SECONDS
            )
        except TimeoutError:
            return WorkerReport(refusal=f"Ray has not answered within {START_SECONDS:.0f} s")
        if isinstance(answer, Failure):
            return WorkerReport(refusal=answer.text or "Ray is not reached")
        try:
            return msgspec.msgpack.decode(answer.body, type=WorkerReport)
        except UNREADABLE as error:
            return WorkerReport(refusal=f"its answer cannot be read: {error}")

    def wish(self, wishes: Wishes) -> None:
        """Replace what is reserved and wanted."""
        if wishes != self._wishes:
            self._wishes = wishes
            self._driver.send(wishes)

    def _note_started(self) -> None:
        self._driver.send(self._wishes)

    def _note_ended(self) -> None:
        nodes = () if self.state is None else self.state.nodes
        self.state = None
        for node in nodes:
            self._questions.end(node.ray_node)
        self._changed()

    def _receive(self, message: RayState | RayLost | Answer | Failure) -> None:
        if isinstance(message, RayState):
            self.state, self.lost = message, None
            self._changed()
        elif isinstance(message, RayLost):
            if self.lost != message:
                log.warning("%s %s", message.cause, message.hint)
            self.lost = message
        else:
            self._questions.answer(message)
