"""Measures how long it takes to plan the whole catalog: ``python -m benchmarks.fits``.

Prints processor seconds of the first call, which prepares all launches, and of later calls: for this machine, and for
one with 2 TiB of free memory, on which nearly everything fits.
"""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
from tests.support.end_signals import end_as_ctrl_c

from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines
from xinference.hardware.devices import Host, read_host
from xinference.planning.fits import FitFinder, Memory
from xinference.planning.occupancy import Occupancy, available


def measure(host: Host, calls: int = 5) -> tuple[int, list[float]]:
    """The number of entries, and the seconds of each call with its JSON."""
    families, finder, seconds = list(builtin_families().values()), FitFinder(all_engines()), []
    encode = msgspec.json.Encoder().encode
    entries = 0
    for number in range(calls):
        now = replace(host, memory_available=host.memory_available - number * (1 << 20))
        begin = time.process_time()
        found = list(finder.find(families, now, Memory(available(now, Occupancy()))))
        b",".join([encode(fit.to_dict()) for fit in found])
        seconds.append(time.process_time() - begin)
        entries = len(found)
    return entries, seconds


def main() -> None:
    here = read_host()
    large = replace(here, memory_total=2 << 40, memory_available=2 << 40)
    for name, host in (("this machine", here), ("2 TiB", large)):
        entries, (first, *later) = measure(host)
        print(f"{name}: {entries} entries, first {first:.2f} s, later {min(later):.2f} to {max(later):.2f} s")


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
