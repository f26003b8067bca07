"""The loads of the benchmark, and the medians of their rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.gateway.load import Load, Result

STREAMS = (1, 8, 32, 256, 1000)


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    kind: str
    """``stream``, ``paced`` or ``whole``."""
    connections: int
    load: Load

    @property
    def label(self) -> str:
        paced = f" at {self.load.rate:g} a second" if self.load.rate else ""
        return f"{self.kind}, {self.connections}{paced}"


def cells(quick: bool) -> list[Cell]:
    """Every load; the quick ones are a tenth as long."""
    loads = []
    for n in STREAMS:
        tokens = 256 if n <= 32 else 128 if n <= 256 else 64
        most = 6_000 if n == 1 else 40_000
        requests = max(n, most // (10 if quick else 1) // tokens)
        loads.append(_cell("stream", n, requests, stream=True, tokens=tokens))
    for n, rate, seconds in ((32, 50.0, 3.0), (256, 20.0, 3.0)):
        tokens = int(rate * seconds / (5 if quick else 1))
        loads.append(_cell("paced", n, n, stream=True, tokens=tokens, rate=rate))
    for n in STREAMS:
        requests = max(n, (1_500 if n == 1 else 6_000) // (10 if quick else 1))
        loads.append(_cell("whole", n, requests, stream=False))
    return loads


def open_minute(quick: bool) -> Cell:
    """1,000 open streams for a minute."""
    return _cell("paced", 1000, 1000, stream=True, tokens=50 if quick else 600, rate=10.0)


def _cell(kind: str, n: int, requests: int, *, stream: bool, tokens: int = 16, rate: float = 0.0) -> Cell:
    return Cell(kind, n, Load(0, n, requests, stream, tokens, rate))


@dataclass
class Figures:
    """The rounds of one cell on one target."""

    cell: Cell
    target: str
    rounds: list[Result] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Median over the rounds of one of these properties or of a `Result`'s fields."""
        return float(statistics.median(getattr(self, name, None) or [getattr(r, name) for r in self.rounds]))

    @property
    def rate(self) -> list[float]:
        """Requests a second, or events a second of streams."""
        return [self._units(r) / r.seconds for r in self.rounds]

    @property
    def server_cpu(self) -> list[float]:
        """Seconds of the server's CPU time, of all its processes, for each event or whole answer."""
        spent = [sum(seconds for name, seconds in r.cpu.items() if name != "engine") for r in self.rounds]
        return [seconds / max(1, self._units(r)) for seconds, r in zip(spent, self.rounds, strict=True)]

    @property
    def load_cpu(self) -> list[float]:
        """CPU seconds of the load generator for each event or whole answer."""
        return [r.load_cpu / max(1, self._units(r)) for r in self.rounds]

    @property
    def errors(self) -> int:
        return sum(sum(r.errors.values()) for r in self.rounds)

    @property
    def memory_a_stream(self) -> float:
        """Memory of the server in bytes for each connection, the maximum of all rounds."""
        return max(r.memory.get("server", 0) for r in self.rounds) / self.cell.connections

    def ratio(self, other: Figures) -> float:
        """Median over the rounds of this rate divided by the other target's of the same round."""
        return statistics.median(a / b for a, b in zip(self.rate, other.rate, strict=True))

    def _units(self, result: Result) -> int:
        return result.events if self.cell.load.stream else result.requests
