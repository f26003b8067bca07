"""An update of the catalog on a running server: used at once, without a touch to what runs, and rolled back."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.support.home import UID, Home
from tests.support.polling import until
from xinference.catalog.family_fields import fields_of
from xinference.catalog.registry import builtin_families

pytestmark = pytest.mark.live


def names(home: Home) -> set[str]:
    answer = httpx2.get(f"{home.url}/v1/model_registrations/LLM", timeout=30).json()
    return {each["model_name"] for each in answer}


def test_an_update_needs_no_restart_and_touches_nothing_that_runs(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    home = make_home()
    server = home.serve()
    assert home.launch(model_name=UID, quantization="Q4_1").status_code == 200
    engine = home.engine_pid()
    family = fields_of(builtin_families()[UID]) | {"model_name": "new-chat"}
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps({"format": 1, "version": "2099.1", "families": [family]}))

    updated = home.cli("catalog", "update", "--from", str(file))
    assert (updated.returncode, updated.stdout) == (0, "added: new-chat\n"), updated.stderr
    assert "new-chat" in names(home)
    launched = home.launch(model_name="new-chat", model_uid="new", quantization="Q4_1")
    assert launched.status_code == 200, launched.text
    assert home.chat(model="new").status_code == 200

    file.write_text(file.read_text()[:-10])
    broken = home.cli("catalog", "update", "--from", str(file))
    assert broken.returncode == 1 and "refused" in broken.stderr and "Traceback" not in broken.stderr
    assert "new-chat" in names(home)

    assert home.cli("catalog", "rollback").returncode == 0
    assert "new-chat" not in names(home)
    assert home.engine_pid() == engine and home.chat().status_code == 200
    second = home.engine_pid("new")
    assert home.chat(model="new").status_code == 200

    server.send_signal(signal.SIGTERM)
    server.wait(30)
    home.serve()
    until("both models answer again", lambda: home.chat().status_code == home.chat(model="new").status_code == 200)
    assert (home.engine_pid(), home.engine_pid("new")) == (engine, second)
