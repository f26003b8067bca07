"""A process that builds, for tests that kill it: ``python -m tests.environments.build_in_process ROOT``."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.environments.fake_engine import SPEC, FakeEngine, unheard

if __name__ == "__main__":
    FakeEngine(Path(sys.argv[1])).environments().install(SPEC, unheard, threading.Event())
