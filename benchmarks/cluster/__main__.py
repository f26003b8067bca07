"""The budgets of a cluster: ``python -m benchmarks.cluster [hop] [idle] [losses] [nodes]``; all without words.

As root, each worker is on a host of its own in a network namespace; else the traffic and the pulled cable are left out.
The exit status is 1 if a budget does not hold.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.cluster import hop, idle, losses, many_nodes
from benchmarks.cluster.clusters import weights
from benchmarks.cluster.figures import Figure, table

PARTS = ("hop", "idle", "losses", "nodes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what is measured")
    parts = parser.parse_args().parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {unknown}; there are {', '.join(PARTS)}")
    figures: list[Figure] = []
    with weights() as file:
        for name, measure in (("hop", hop.measure), ("idle", idle.measure), ("losses", losses.measure)):
            if name in parts:
                figures += measure(file)
    if "nodes" in parts:
        figures += many_nodes.measure()
    sys.stdout.write(table(figures) + "\n")
    return 0 if all(each.holds for each in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
