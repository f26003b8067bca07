"""Real agents finish a task of two steps: they run the command that the model asks for, and show its last text."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.agents.conftest import MODEL, TEXT
from tests.support.scripted_home import ScriptedHome

pytestmark = pytest.mark.live
TASK = "Write a file."


def run(words: list[str], folder: Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an agent in `folder` with a home folder of its own, so that no settings of the user act."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **env}
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_codex_runs_the_command_and_ends(home: ScriptedHome, programs: Path, folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / ".codex" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        f'model = "{MODEL}"\nmodel_provider = "xinference"\nweb_search = "disabled"\n'
        f'[model_providers.xinference]\nname = "Xinference"\nbase_url = "{home.url}/v1"\nwire_api = "responses"\n'
    )
    codex = str(programs / "node_modules" / ".bin" / "codex")
    words = [codex, "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK]
    done = run(words, folder, tmp_path)
    assert (folder / "result.txt").read_text() == "written by the agent\n"
    assert TEXT in done.stdout


def test_claude_code_runs_the_command_and_ends(
    home: ScriptedHome, programs: Path, folder: Path, tmp_path: Path
) -> None:
    claude = str(programs / "node_modules" / ".bin" / "claude")
    words = [claude, "--print", "--allowedTools", "Bash", "--model", MODEL, TASK]
    variables = {"ANTHROPIC_BASE_URL": home.url, "ANTHROPIC_AUTH_TOKEN": "none", "ANTHROPIC_SMALL_FAST_MODEL": MODEL}
    done = run(words, folder, tmp_path, **variables, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1")
    assert (folder / "result.txt").read_text() == "written by the agent\n"
    assert TEXT in done.stdout


def test_openais_client_for_node_streams_an_answer(
    home: ScriptedHome, programs: Path, folder: Path, tmp_path: Path
) -> None:
    program = programs / "stream.mjs"
    program.write_text(
        'import OpenAI from "openai";\n'
        f'const client = new OpenAI({{ baseURL: "{home.url}/v1", apiKey: "none" }});\n'
        "const stream = await client.chat.completions.create({\n"
        f'  model: "{MODEL}", messages: [{{ role: "user", content: "Hello" }}], stream: true,\n'
        "});\n"
        'for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n'
    )
    assert run(["node", str(program)], folder, tmp_path).stdout == TEXT
