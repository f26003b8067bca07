"""A server that starts one replica, says so, and waits to be killed: ``doomed_server.py HOME GRACE_SECONDS SCRIPT``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from tests.process.conftest import EngineHome
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.process.snapshot import ReplicaState


async def main(folder: str, grace_seconds: str, script: dict[str, Any]) -> None:
    """Start ``r1`` and print its pids: when it is ready, or at once with a script that never gets there."""
    settings = Settings(home=Path(folder), grace_seconds=float(grace_seconds), stop_seconds=2.0, start_seconds=20.0)
    replica = EngineHome(settings).start(**script)
    if script.get("health_delay"):
        await until_async("the replica starts", lambda: replica.state is not ReplicaState.NEW)
    else:
        await replica.wait_ready()
    seen = replica.snapshot
    print(json.dumps({"engine_pid": seen.engine_pid, "keeper_pid": seen.keeper_pid, "port": seen.port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
