from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_the_pages_are_written_without_a_server(run: Run, tmp_path: Path) -> None:
    result = run("docs", "--out", str(tmp_path / "pages"))
    assert (result.exit_code, result.stdout) == (0, "")
    names = {path.name for path in (tmp_path / "pages").iterdir()}
    assert {"index.rst", "llama-2-chat.rst"} <= names
    assert result.stderr == f"Wrote {len(names)} pages to {tmp_path / 'pages'}.\n"


def test_the_folder_has_to_be_named(run: Run) -> None:
    assert run("docs").exit_code == 2


def test_a_folder_that_cannot_be_made_exits_with_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("docs", "--out", str(tmp_path / "file" / "under"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


@pytest.mark.process
def test_the_command_itself_loads_no_registry() -> None:
    script = "import sys, xinference.cli.commands.docs; print('xinference.local_commands.docs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
