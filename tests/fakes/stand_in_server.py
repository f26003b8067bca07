"""The server with the scriptable fake engine in place of real ones: ``python -m tests.fakes.stand_in_server vLLM``.

The arguments name the engines; without any, it is llama.cpp. Gateway processes know the dialects of these engines, so
this works with several of them too. The option ``script`` of a launch is the fake's script.
"""

from __future__ import annotations

import sys

from tests.fakes.fifth_engine.engine import FifthEngine
from xinference import server
from xinference.engines import registry
from xinference.engines.base import Engine
from xinference.engines.static_table import StaticTable
from xinference.gateway.routes import DATA_PATHS
from xinference.launch.plan import LaunchPlan


class StandIn(FifthEngine):
    """The fake engine under the name of a real one, for GGUF files, with the real one's paths."""

    def __init__(self, real: Engine) -> None:
        self.table = StaticTable(engine=real.table.engine, formats={"ggufv2": None})
        self._real = real

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        """The paths of the real engine; all that there are if the script records what arrives."""
        if plan.options.get("script", {}).get("record"):
            return frozenset(path.upstream for path in DATA_PATHS.values())
        return self._real.paths(plan)


def main(names: list[str]) -> int:
    """Serve until stopped."""
    known = {each.table.engine for each in registry.ENGINES}
    assert set(names) <= known, f"there are {known}"
    registry.ENGINES = tuple(StandIn(each) if each.table.engine in names else each for each in registry.ENGINES)
    sys.argv = sys.argv[:1]
    return server.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["llama.cpp"]))
