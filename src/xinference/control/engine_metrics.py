"""The metrics of all engines: reads them in parallel, and returns their lines under their own names."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from xinference.control.exposition import Exposition, TooManySamplesError, joined, label_text, read
from xinference.engines.dialects import dialect_of
from xinference.engines.engine_metrics import EngineFigures, EngineMetrics
from xinference.process.probe_session import probe_session
from xinference.routing.table import RoutingTable, Target, owner_of

#: Time of one engine for its answer, in seconds: an engine that hangs is left out.
ASK_SECONDS = 1.0
#: An engine with a longer answer is left out; vLLM's has about 60 KB.
MAX_BYTES = 1024 * 1024
#: Time for which the answers are used again, so that several readers cost as much as one.
KEPT_SECONDS = 2.0
#: Names that begin with this are our own: an engine may not write them.
OWN = "xinference_engine_"

Fetch = Callable[[Target, str], Awaitable[bytes]]
"""Returns the body of an answer to a GET of this path.

Raises:
    EngineSilentError: there is none in time, or one that is no answer.
"""


class EngineSilentError(Exception):
    """An engine has not reported its metrics; the text is the reason, one of a few."""


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """The metrics of one replica."""

    model: str
    replica: str
    engine: str
    figures: EngineFigures | None
    """None: it has not answered."""
    exposition: Exposition | None = None
    problem: str = ""


#: The common metrics: name, type, field of the figures, text.
_COMMON = (
    ("running", "gauge", "running", "Requests that the engine computes now"),
    ("waiting", "gauge", "waiting", "Requests in the engine's own queue"),
    ("kv_cache_ratio", "gauge", "kv_cache_ratio", "Share of the KV cache that running requests use, 0 to 1"),
    ("prefix_queries_total", "counter", "prefix_queries", "Prompt tokens that were looked up in the prefix cache"),
    ("prefix_hits_total", "counter", "prefix_hits", "Prompt tokens that were found in the prefix cache"),
    ("preemptions_total", "counter", "preemptions", "Requests that were interrupted because the KV cache was full"),
    ("prompt_tokens_total", "counter", "prompt_tokens", "Tokens of prompts, also those found in the prefix cache"),
    ("output_tokens_total", "counter", "output_tokens", "Tokens that the engine has generated"),
    ("draft_tokens_total", "counter", "draft_tokens", "Tokens that were drafted by speculative decoding"),
    ("accepted_tokens_total", "counter", "accepted_tokens", "Drafted tokens that became tokens of an answer"),
)
assert {name for _, _, name, _ in _COMMON} == {each.name for each in fields(EngineFigures)}


class EngineScraper:
    """Asks the engines for their metrics; used from one event loop, so it needs no lock."""

    def __init__(
        self,
        table: Callable[[], RoutingTable],
        fetch: Fetch | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._fetch = fetch or _fetch
        self._now = now
        self._scraping: asyncio.Task[list[ReplicaFigures]] | None = None
        self._scraped_at = 0.0
        self._failures: Counter[tuple[str, str]] = Counter()

    async def replicas(self) -> list[ReplicaFigures]:
        """The metrics of each ready replica, at most `KEPT_SECONDS` old."""
        scraping = self._scraping
        if scraping is None or (scraping.done() and self._now() - self._scraped_at >= KEPT_SECONDS):
            self._scraped_at = self._now()
            scraping = self._scraping = asyncio.create_task(self._scrape(), name="metrics of engines")
        return await asyncio.shield(scraping)

    async def text(self) -> str:
        """The metrics of all engines in Prometheus' text format, with those that all of them have."""
        replicas = await self.replicas()
        running = self._table().routes
        failures = {key: count for key, count in self._failures.items() if key[0] in running}
        self._failures = Counter(failures)
        # In a thread, because the requests to models may be answered in this one.
        return await asyncio.to_thread(_text, replicas, failures)

    async def _scrape(self) -> list[ReplicaFigures]:
        asked = [
            self._ask(uid, target, route.engine)
            for uid, route in self._table().routes.items()
            if owner_of(uid, route) is None  # an adapter or an alias has its deployment's engine
            for target in route.targets
            if dialect_of(route.engine).metrics.path
        ]
        return list(await asyncio.gather(*asked))

    async def _ask(self, uid: str, target: Target, engine: str) -> ReplicaFigures:
        metrics = dialect_of(engine).metrics
        try:
            body, cache = await asyncio.gather(
                self._fetch(target, metrics.path), self._cache_answer(target, metrics.cache_path)
            )
            exposition, figures = await asyncio.to_thread(_read, body, cache, uid, target.replica_id, metrics)
        except EngineSilentError as silent:
            self._failures[uid, str(silent)] += 1
            return ReplicaFigures(uid, target.replica_id, engine, None, problem=str(silent))
        return ReplicaFigures(uid, target.replica_id, engine, figures, exposition)

    async def _cache_answer(self, target: Target, path: str) -> bytes | None:
        if not path:
            return None
        try:
            return await self._fetch(target, path)
        except EngineSilentError:  # the metrics are reported without the use of the cache
            return None


def _read(
    body: bytes, cache: bytes | None, uid: str, replica: str, metrics: EngineMetrics
) -> tuple[Exposition, EngineFigures]:
    labels = {"model": uid, "replica": replica}
    try:
        divided = dict.fromkeys((metrics.running, metrics.waiting), metrics.divided_by) if metrics.divided_by else {}
        exposition = read(body.decode("utf-8", "replace"), labels, OWN, divided)
    except TooManySamplesError:
        raise EngineSilentError("too_large") from None
    return exposition, metrics.figures(exposition.values, cache)


def _text(replicas: Iterable[ReplicaFigures], failures: Mapping[tuple[str, str], int]) -> str:
    known = list(replicas)
    expositions = [each.exposition for each in known if each.exposition is not None]
    return joined(expositions) + "".join(_common(known)) + _scrapes(known, failures)


def _common(replicas: Iterable[ReplicaFigures]) -> Iterable[str]:
    for name, kind, field, text in _COMMON:
        values = [(each, getattr(each.figures, field)) for each in replicas if each.figures is not None]
        lines = [f"{OWN}{name}{_labels(each)} {value:.17g}\n" for each, value in values if value is not None]
        if lines:
            yield f"# HELP {OWN}{name} {text}\n# TYPE {OWN}{name} {kind}\n" + "".join(lines)


def _scrapes(replicas: Iterable[ReplicaFigures], failures: Mapping[tuple[str, str], int]) -> str:
    up = "".join(f"{OWN}up{_labels(each)} {0 if each.figures is None else 1}\n" for each in replicas)
    failed = "".join(
        f'{OWN}scrape_failures_total{{model="{label_text(uid)}",reason="{reason}"}} {count}\n'
        for (uid, reason), count in failures.items()
    )
    return (
        f"# HELP {OWN}up 1 for each engine that has reported its metrics\n# TYPE {OWN}up gauge\n{up}"
        f"# HELP {OWN}scrape_failures_total Times that an engine has not reported its metrics\n"
        f"# TYPE {OWN}scrape_failures_total counter\n{failed}"
    )


def _labels(each: ReplicaFigures) -> str:
    return f'{{model="{label_text(each.model)}",replica="{label_text(each.replica)}",engine="{each.engine}"}}'


async def _fetch(target: Target, path: str) -> bytes:
    if target.server_name:  # its front door takes no such requests
        raise EngineSilentError("other_node")
    headers = {"Authorization": f"Bearer {target.api_key}"}
    async with probe_session(headers) as session:
        import aiohttp  # here, because the start of the server does not need it: see `probe_session`

        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                session.get(target.base_url + path, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise EngineSilentError("refused")
                body = await answer.content.read(MAX_BYTES + 1)
                while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES + 1 - len(body))):
                    body += more
        except TimeoutError:
            raise EngineSilentError("timeout") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise EngineSilentError("unreachable") from None
    if len(body) > MAX_BYTES:
        raise EngineSilentError("too_large")
    return body
