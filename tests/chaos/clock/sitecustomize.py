"""Sets the time of day of one process: a test writes the offset in seconds to the file of CHAOS_CLOCK.

Python imports this module at its start if its folder is in PYTHONPATH. The clock of the machine is not changed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

if path := os.environ.get("CHAOS_CLOCK"):
    _real, _file = time.time, Path(path)

    def _time() -> float:
        try:
            return _real() + float(_file.read_text() or 0)
        except (OSError, ValueError):
            return _real()

    time.time = _time
