"""The server with the scriptable fake engine in place of llama.cpp: ``python -m tests.fakes.stand_in_server``.

Gateway processes know llama.cpp's dialect, so this works with several of them too. The option ``script`` is the fake's
script.
"""

from __future__ import annotations

import sys

from tests.fakes.fifth_engine.engine import FifthEngine
from xinference import server
from xinference.engines import registry
from xinference.engines.base import StaticTable
from xinference.launch.plan import LaunchPlan

NAME = "llama.cpp"


class StandIn(FifthEngine):
    """The fake engine under the name of llama.cpp."""

    table = StaticTable(engine=NAME, formats={"ggufv2": None})

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return frozenset({"/v1/chat/completions", "/v1/messages"})


if __name__ == "__main__":
    registry.ENGINES = (*(each for each in registry.ENGINES if each.table.engine != NAME), StandIn())
    sys.exit(server.main())
