"""Disables the progress bars that ModelScope's client draws on stderr during downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_lock = threading.Lock()
_replaced: list[Any] = []
"""The client's own bar class, once for each running download; the last one restores it."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Disable the client's bars while any thread runs the block.

    The client draws a bar for each file that it downloads in one stream, and has no parameter to disable it.
    """
    from modelscope_hub import _download

    client: Any = _download
    with _lock:
        if _replaced:
            _replaced.append(_replaced[0])
        else:
            _replaced.append(client.tqdm)
            client.tqdm = partial(client.tqdm, disable=True)
    try:
        yield
    finally:
        with _lock:
            original = _replaced.pop()
            if not _replaced:
                client.tqdm = original
