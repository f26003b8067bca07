"""A server whose model answers agents by script, and the folder of the agents' programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
#: The uid of the scripted model; Claude Code accepts any name.
MODEL = "coder"
COMMAND = "echo written by the agent > result.txt"
TEXT = "The file is written."


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with `node_modules/.bin`, which `make test-agents` installs."""
    folder = Path(os.environ.get("AGENTS_FOLDER", Path(__file__).parents[2] / ".agents")).absolute()
    if not (folder / "node_modules").is_dir():
        pytest.skip("`make test-agents` installs the agents")
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedHome]:
    weights = write_gguf(HF, "Q8_0", tmp_path_factory.mktemp("weights") / "tiny.gguf")
    home = ScriptedHome(tmp_path_factory.mktemp("home"), free_port(), weights=weights)
    try:
        home.start()
        launched = home.post_launch(MODEL, script={"agent": {"command": COMMAND, "text": TEXT}})
        assert launched.status_code == 200, launched.text
        yield home
    finally:
        home.clean_up()
