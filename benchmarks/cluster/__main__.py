"""The budgets of a cluster: ``python -m benchmarks.cluster [hop] [idle] [losses] [nodes]``; all without words.

As root, each worker is on a host of its own in a network namespace; else the traffic and the pulled cable are left out.
The exit status is 1 if a budget does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

from benchmarks.cluster import hop, idle, losses, many_nodes
from benchmarks.cluster.clusters import weights
from benchmarks.cluster.figures import HEAD, Figure, row

MEASURES: dict[str, Callable[[Path], Iterable[Figure]]] = {
    "hop": hop.measure,
    "idle": idle.measure,
    "losses": losses.measure,
    "nodes": lambda file: many_nodes.measure(),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what is measured")
    parts = parser.parse_args().parts or MEASURES
    if unknown := set(parts) - set(MEASURES):
        parser.error(f"unknown parts {unknown}; there are {', '.join(MEASURES)}")
    holds = True
    # An installed package has its bytecode; without it most of a start is the compiler's.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print("\n".join(HEAD), flush=True)
    with weights() as file:
        for name, measure in MEASURES.items():
            if name in parts:
                for figure in measure(file):
                    holds = holds and figure.holds
                    print(row(figure), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
