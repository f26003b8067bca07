"""The server with the fifth engine: ``python -m tests.fakes.fifth_engine.server``."""

from __future__ import annotations

import sys

from tests.fakes.fifth_engine.dialect import DIALECT, NAME
from tests.fakes.fifth_engine.engine import FifthEngine
from xinference import server
from xinference.engines import dialects, registry


def register() -> None:
    """Let the programs of this process know the fifth engine."""
    registry.ENGINES = (*registry.ENGINES, FifthEngine())
    dialects.DIALECTS[NAME] = DIALECT


if __name__ == "__main__":
    register()
    sys.exit(server.main())
