"""A pytest plugin: the garbage collector does not look at what was there before the first test.

Modules and collected tests are more than a million objects that live until the end. Each full collection while they are
made, and each one in a test, would visit all of them.
"""

from __future__ import annotations

import gc

gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.collect()
    gc.freeze()
