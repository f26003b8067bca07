"""A pytest plugin: which live tests run at once with ``--dist loadfile``.

A worker of pytest-xdist runs all tests of a file, which share a server. The files of `COMPUTE` are for one worker
together: two engines that compute on the same cores wait for each other's threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

#: Files of tests whose models compute for long.
COMPUTE = frozenset(
    f"tests/live/test_{name}.py"
    for name in (
        "clients", "context", "engine_limits", "engines", "lora", "openai_sdk", "replicas", "survival", "transformers",
        "vllm",
    )
)  # fmt: skip


def unit_of(nodeid: str) -> str:
    """The unit of work that a test belongs to: its file, or all files of `COMPUTE`."""
    path = nodeid.partition("::")[0]
    return "compute" if path in COMPUTE else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A scheduler of these units; the order is that of their numbers of tests, so that `COMPUTE` begins at once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types for others
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return Scheduling(config, log)


def missing_files() -> list[str]:
    """The names in `COMPUTE` that no file has."""
    return sorted(name for name in COMPUTE if not (Path(__file__).parents[2] / name).is_file())
