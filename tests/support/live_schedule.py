"""A pytest plugin: which live tests run at once with ``--dist loadfile``.

A worker of pytest-xdist runs all tests of a file, which share a server. The files of `COMPUTE` are for one worker
together: two engines that compute on the same cores wait for each other's threads. What takes longest begins first, so
that no worker is left with a long file when the other has nothing more to do.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

#: Files of tests whose models compute for long.
COMPUTE = frozenset(
    f"tests/live/test_{name}.py"
    for name in (
        "cluster_gang", "cluster_real_model", "context", "engine_limits", "engines", "lora", "openai_sdk", "replicas",
        "transformers", "vllm",
    )
)  # fmt: skip

#: The units that take longest, the longest first; the others follow by their numbers of tests.
LONGEST = (
    "compute",
    *(
        f"tests/live/test_{name}.py"
        for name in (
            "snippets", "openapi_fuzz", "gateway_workers", "survival", "lifecycle", "custom_models", "on_demand",
            "slow_hubs", "catalog", "endurance", "endings", "clients", "older_command_lines", "keys", "embeddings",
        )
    ),
    "tests/chaos/test_chaos.py",
    "tests/chaos/test_node_chaos.py",
    "tests/hostile/test_hostile.py",
    "tests/soak/test_soak.py",
)  # fmt: skip


def unit_of(nodeid: str) -> str:
    """The unit of work that a test belongs to: its file, or all files of `COMPUTE`."""
    path = nodeid.partition("::")[0]
    return "compute" if path in COMPUTE else path


def place_of(unit: str, tests: int) -> tuple[int, int]:
    """The place of a unit in the order in which they begin."""
    return (LONGEST.index(unit) if unit in LONGEST else len(LONGEST)), -tests


class Units(OrderedDict[str, dict[str, bool]]):
    """The units that wait, each with its tests; the one that is taken out is the first by `place_of`."""

    def popitem(self, last: bool = True) -> tuple[str, dict[str, bool]]:
        unit = min(self, key=lambda unit: place_of(unit, len(self[unit])))
        return unit, self.pop(unit)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A scheduler of these units in this order."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def __init__(self, config: pytest.Config, log: Any) -> None:
            super().__init__(config, log)
            self.workqueue = Units()

        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return Scheduling(config, log)


def missing_files() -> list[str]:
    """The names in `COMPUTE` and `LONGEST` that no file has."""
    names = COMPUTE | {*LONGEST} - {"compute"}
    return sorted(name for name in names if not (Path(__file__).parents[2] / name).is_file())
