"""The options of the engines that a launch may set, with their types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.planning.engine_choice import named_engine


class OptionTables:
    """The options of each engine. The program of an engine that lists them runs only once."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._tables: dict[str, Mapping[str, str]] = {}
        self._lock = asyncio.Lock()

    async def types(self, name: str) -> Mapping[str, str]:
        """The options of an engine and their types; empty if the engine has no program that lists them."""
        engine = self._engines[name]
        if not engine.describe_argv:
            return {}
        async with self._lock:
            if name not in self._tables:
                self._tables[name] = await _read_options(name, engine)
            return self._tables[name]

    async def open_types(self, name: str) -> tuple[str, Mapping[str, str]]:
        """The engine that a user has named, and the options that a launch may set, with their types."""
        engine = named_engine(self._engines, name)
        own_name = engine.table.engine
        return own_name, engine.open_options(await self.types(own_name))

    async def known(self, requested: str | None) -> Mapping[str, Mapping[str, str]]:
        """The options of the engines that a request may mean, by engine; without those that no program lists."""
        known: dict[str, Mapping[str, str]] = {}
        for name, engine in self._engines.items():
            if engine.describe_argv and engine.table.has_name(requested or name):
                known[name] = await self.types(name)
        return known


async def _read_options(name: str, engine: Engine) -> Mapping[str, str]:
    process = await asyncio.create_subprocess_exec(
        *engine.describe_argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        tail = errors.decode(errors="replace").splitlines()[-40:]
        raise Problem(Code.ENGINE_BROKEN, f"The program that lists the options of {name} fails.", log_tail=tail)
    options: Mapping[str, str] = json.loads(output)["options"]
    return options
