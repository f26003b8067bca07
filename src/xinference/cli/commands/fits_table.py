"""The table of `xinference registrations --fits`: one line for each size of a model, with the version to launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xinference.cli.connection import Target
from xinference.cli.output import note, print_json, size, size_in_billions
from xinference.cli.table import print_table
from xinference.error_codes import Code

if TYPE_CHECKING:
    from xinference.client import Client
    from xinference.config import Settings

Json = dict[str, Any]
_ORDER = ("now", "after_unloading", "never")


def show_fits(target: Target, model_type: str, part: str, *, as_json: bool, wide: bool) -> None:
    """Print what fits on the server's machine; without a server, on this one."""

    def of_server(client: Client) -> list[Json]:
        return client.list_fits(model_type, part)

    def without_server(settings: Settings) -> list[Json]:
        from xinference.local_commands.fits import fits

        return fits(settings, model_type, part)

    found = target.ask(of_server, without_server)
    if as_json:
        print_json(found)
        return
    best = best_of_each_size(found)
    header = ("Name", "Size", "Fits", "Memory", "Engine", "Format", "Quantization", *(("Reason",) if wide else ()))
    print_table(header, [_row(fit, wide=wide) for fit in best], wide=wide)
    counts = {state: sum(fit["fits"] == state for fit in best) for state in _ORDER}
    note(
        f"Of {len(best)} sizes, {counts['now']} fit now, {counts['after_unloading']} fit after models are unloaded, "
        f"and {counts['never']} do not fit. --json shows each version on each engine, with the reason."
    )


def best_of_each_size(found: Iterable[Mapping[str, Any]]) -> list[Json]:
    """For each size of a model, the version that a launch would prefer of those that fit earliest.

    `found` has the versions in the order of preference. Of a size that never fits, the smallest version is shown.
    """
    best: dict[tuple[str, str], Json] = {}
    for fit in map(dict, found):
        key = fit["model_name"], str(fit["model_size_in_billions"])
        if key not in best or _rank(fit) < _rank(best[key]):
            best[key] = fit
    return list(best.values())


def _rank(fit: Json) -> tuple[int, bool, float]:
    """The smallest rank is shown; equal ranks keep the order of preference."""
    if fit["fits"] != "never":
        return _ORDER.index(fit["fits"]), False, 0.0
    return len(_ORDER), not _lacks_memory(fit), fit["weights_bytes"] or float("inf")


def _lacks_memory(fit: Json) -> bool:
    """Whether only the memory is too small; otherwise no engine runs the version on this machine."""
    return bool(fit["code"] == Code.DOES_NOT_FIT)


def _row(fit: Json, *, wide: bool) -> tuple[Any, ...]:
    memory = fit["memory_bytes"]
    weights = fit["weights_bytes"]
    shown = size(memory) if memory else f"> {size(weights)}" if _lacks_memory(fit) else None
    state = f"after unloading {', '.join(fit['unload'])}" if fit["unload"] else fit["fits"]
    columns = (
        fit["model_name"],
        size_in_billions(fit["model_size_in_billions"] or None),
        state,
        shown,
        fit["engine"],
        fit["model_format"],
        fit["quantization"],
    )
    return (*columns, fit["reason"]) if wide else columns
