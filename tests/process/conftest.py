"""A short temporary home, commands for fake engines, and the proof that nothing is left."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.running import ENGINE
from xinference.config import Settings
from xinference.process.command import EngineCommand
from xinference.process.leftovers import KEEPER_VARIABLE
from xinference.process.replica import Replica


@dataclass
class EngineHome:
    """A home in which a test runs keepers with fake engines, without a server."""

    settings: Settings
    log_path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log_path = self.settings.log_dir / "engine.log"

    def command(self, **script: Any) -> EngineCommand:
        """A fake engine that follows `script`."""
        return EngineCommand(
            argv=(sys.executable, str(ENGINE), "--port", "{port}", "--script", json.dumps(script)),
            env={"FAKE_ENGINE_KEY": "engine-key"},
            model_name="fake",
            api_key="engine-key",
            context={"deployment": "d1"},
        )

    def start(self, settings: Settings | None = None, **script: Any) -> Replica:
        """Start replica ``r1``."""
        return Replica.start("r1", self.command(**script), settings or self.settings, log_path=self.log_path)

    @property
    def socket(self) -> Path:
        return self.settings.run_dir / "r1.sock"

    def living(self) -> list[psutil.Process]:
        """Every process, keeper, engine or below, of this home."""
        found = []
        for process in psutil.process_iter():
            try:
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if not zombie and process.environ().get(KEEPER_VARIABLE, "").startswith(str(self.settings.home)):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def home() -> Iterator[EngineHome]:
    """A home with short patience; whatever a failed test left in it is killed."""
    folder = Path(tempfile.mkdtemp(prefix="xi-"))
    settings = Settings(home=folder, grace_seconds=1.0, stop_seconds=2.0, start_seconds=20.0)
    place = EngineHome(settings)
    yield place
    for process in place.living():
        process.kill()
    shutil.rmtree(folder)
