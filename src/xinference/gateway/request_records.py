"""Makes the record of each request from its figures, at its end, and lists the requests that have not ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from xinference.error_codes import Code
from xinference.gateway.http.request_figures import RequestFigures
from xinference.records.record import CLIENT_LEFT, LOCAL_NODE, Record
from xinference.records.tokens import Tokens
from xinference.records.trace import Sampling
from xinference.routing.active_requests import ActiveRequest

#: Number of requests whose records are made together, and the time after which they are made even if there are fewer.
BATCH, DELAY_SECONDS = 64, 0.2
#: The records of larger answers are made at once, so that the answers do not stay in memory.
LARGE_BYTES = 64 * 1024
#: The tokens of a path that runs no model.
_NONE = Tokens(0, 0, 0)
#: An event with this reports that the engine could not complete the answer.
_ERROR = b'"error"'


class Recorder:
    """Makes the records of one gateway process; used from one event loop, so it needs no lock."""

    def __init__(self, publish: Callable[[Record], None], sampling: Sampling | None = None) -> None:
        """
        Args:
            publish: called with each record, soon after the end of its request, or at `flush`.
            sampling: which requests are traced; None: none.
        """
        self.sampling = sampling
        self._publish = publish
        self._prefix = secrets.token_hex(4) + "-"
        self._number = 0
        self._active: dict[int, RequestFigures] = {}
        self._ended: list[RequestFigures] = []
        """The requests whose records are not made yet."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, path: str, key_id: str) -> RequestFigures:
        """Begin the record of a request whose key has been accepted."""
        figures = RequestFigures()
        figures.began = time.perf_counter()
        figures.path, figures.key_id = path, key_id
        self._number = figures.number = number = self._number + 1
        self._active[number] = figures
        return figures

    def id_of(self, figures: RequestFigures) -> str:
        """The id of a request in its record."""
        return f"{self._prefix}{figures.number}"

    def end(self, figures: RequestFigures, status: int) -> None:
        """Take a request that has ended; `status` is 0 if the client left before the answer.

        The record is made a moment later, with those of other requests: one at a time, it would cost four times as
        much, because its code and data would be loaded into the processor's caches for each request.
        """
        figures.ended, figures.status, figures.watch = time.perf_counter(), status, None
        del self._active[figures.number]
        ended = self._ended
        ended.append(figures)
        if len(ended) >= BATCH or len(figures.first) > LARGE_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self.flush)

    def flush(self) -> None:
        """Make and publish the records of all requests that have ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        clock = time.time() - time.perf_counter()
        for figures in ended:
            self._publish(self._record(figures, clock))

    def _record(self, figures: RequestFigures, clock: float) -> Record:
        """The record of one request; `clock` is the time of day at the zero of `time.perf_counter`."""
        began, first, status, code = figures.began, figures.first_token_at, figures.status, figures.code
        tokens = output = None
        if 200 <= status < 300:
            tokens = _NONE if figures.is_free else figures.tokens()
            if tokens is None:
                output = figures.estimated_output()
                if not code and _ERROR in figures.last:
                    code = Code.ENGINE_ERROR
        return Record(
            self._prefix + str(figures.number),
            clock + began,
            figures.key_id,
            figures.model,
            figures.replica,
            figures.path,
            figures.is_stream,
            status or CLIENT_LEFT,
            code,
            figures.client_left,
            figures.ended - began,
            first - began if first else None,
            tokens.prompt if tokens is not None else None,
            tokens.cached if tokens is not None else None,
            tokens.output if tokens is not None else output,
            tokens is not None,
            figures.wait_load,
            figures.wait_recovery,
            figures.wait_permit,
            figures.wait_quota,
            figures.bytes_in,
            figures.bytes_out,
            LOCAL_NODE,
            figures.span.text if figures.span is not None else "",
        )

    def active(self) -> list[ActiveRequest]:
        """The requests that have not ended, oldest first."""
        now, clock = time.time(), time.perf_counter()
        return [self._active_request(figures, now, clock) for figures in self._active.values()]

    def _active_request(self, figures: RequestFigures, now: float, clock: float) -> ActiveRequest:
        first = figures.first_token_at
        return ActiveRequest(
            request_id=self.id_of(figures),
            started=now - (clock - figures.began),
            key_id=figures.key_id,
            model=figures.model,
            replica=figures.replica,
            path=figures.path,
            stream=figures.is_stream,
            seconds=clock - figures.began,
            first_token=first - figures.began if first else None,
            output_tokens=figures.estimated_output() if first else None,
            waits_for=figures.waits_for,
        )

    def abort(self, request_id: str) -> bool:
        """Abort a request that has not ended; False: there is none of this id that has been read completely."""
        prefix, _, number = request_id.rpartition("-")
        figures = self._active.get(int(number)) if prefix + "-" == self._prefix and number.isdecimal() else None
        if figures is None or figures.watch is None:
            return False
        figures.watch.abort()
        return True


class LocalRequests:
    """The requests of a gateway of one process, for the management API."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def active(self) -> list[ActiveRequest]:
        self._recorder.flush()  # so that no request is neither active nor ended
        return self._recorder.active()

    async def abort_request(self, request_id: str) -> bool:
        return self._recorder.abort(request_id)

    async def collect(self) -> None:
        self._recorder.flush()
