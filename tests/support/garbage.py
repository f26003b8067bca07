"""A pytest plugin: the garbage collector does not look at what was there before the first test.

Modules and collected tests are more than a million objects that live until the end. Each full collection in a test
would visit all of them.
"""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
