"""What a board consists of, and the forms of its queries."""

from __future__ import annotations

from dataclasses import dataclass

#: The range of rates, which Grafana sets to at least four intervals of the scrape.
RATE = "[$__rate_interval]"
HERE = 'instance=~"$instance"'
MODEL = f'{HERE},model=~"$model"'


@dataclass(frozen=True)
class Panel:
    """One panel: its title, its unit, and its queries by their legends."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    text: str = ""
    stacked: bool = False


@dataclass(frozen=True)
class Board:
    """One board."""

    uid: str
    title: str
    text: str
    has_model: bool
    rows: tuple[tuple[Panel, ...], ...]


def rate(name: str, labels: str, by: str) -> str:
    """The rate of a counter, summed by labels."""
    return f"sum by ({by}) (rate({name}{{{labels}}}{RATE}))"


def quantile(share: float, name: str, labels: str, by: str = "model") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({name}_bucket{{{labels}}}{RATE})))"


def ratio(above: str, below: str) -> str:
    """A share, without a value while there is nothing to divide by."""
    return f"{above} / ({below} > 0)"


_ALL = rate("xinference_requests_total", MODEL, "model")
#: 0 and not nothing while no request fails.
ERRORS = ratio(f'(sum by (model) (rate(xinference_requests_total{{{MODEL},status=~"5.."}}{RATE})) or 0 * {_ALL})', _ALL)
