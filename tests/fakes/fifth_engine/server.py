"""The server with the fifth engine: ``python -m tests.fakes.fifth_engine.server``."""

from __future__ import annotations

import sys

from tests.fakes.fifth_engine.engine import FifthEngine
from xinference import server
from xinference.engines import registry

if __name__ == "__main__":
    registry.ENGINES = (*registry.ENGINES, FifthEngine())
    sys.exit(server.main())
