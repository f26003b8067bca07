from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.environments.fake_engine import SPEC, FakeEngine, alone


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The command line's home and locks are the fake engine's."""
    engine = alone(tmp_path, monkeypatch)
    engine.make()
    monkeypatch.setenv("XINFERENCE_HOME", str(engine.home))
    monkeypatch.setattr("xinference.environments.environments.SHIPPED", engine.locks)
    return engine


@pytest.mark.process
def test_an_environment_is_installed_listed_verified_and_removed(run: Run, tiny: FakeEngine) -> None:
    installed = run("env", "install", "tiny", "--hardware", "cpu")
    assert installed.exit_code == 0, installed.stderr
    folder = Path(installed.stdout.strip())
    assert folder.parent == tiny.installed_folder
    assert f"{SPEC.name} requires 1.0 MiB of disk space." in installed.stderr
    (entry,) = json.loads(run("env", "list", "--json").stdout)
    assert (entry["name"], entry["installed"], entry["path"]) == (SPEC.name, True, str(folder))
    assert run("env", "verify", "Tiny==1.0").stdout.strip() == str(folder)
    assert run("env", "remove", "TINY").exit_code == 0
    assert not folder.exists()


@pytest.mark.process
def test_an_outdated_environment_is_shown_as_such_and_removed_by_its_folder(run: Run, tiny: FakeEngine) -> None:
    old = Path(run("env", "install", "tiny", "--hardware", "cpu").stdout.strip())
    tiny.verify = "import tiny_engine, tiny_dependency"
    tiny.make()
    rows = [row.split()[3] for row in run("env", "list").stdout.splitlines()[2:]]
    assert rows == ["no", "outdated"]
    assert run("env", "remove", old.name).exit_code == 0
    assert not old.exists()


@pytest.mark.process
def test_a_bundle_is_packed_and_installed(run: Run, tiny: FakeEngine, tmp_path: Path) -> None:
    packed = run("env", "pack", "tiny", "--hardware", "cpu", "--out", str(tmp_path / "tiny.tar"))
    assert packed.stdout == f"{tmp_path / 'tiny.tar'}\n"
    installed = run("env", "install", "--from", str(tmp_path / "tiny.tar"), "--json")
    assert json.loads(installed.stdout)["installed"] is True


def test_the_table_names_what_can_be_installed(run: Run, tiny: FakeEngine) -> None:
    header, _, row = run("env", "list").stdout.splitlines()
    assert header.split() == ["Engine", "Version", "Hardware", "Installed", "Size", "Path"]
    assert row.split() == ["Tiny", "1.0", "cpu", "no", "1.0", "MiB", "-"]


@pytest.mark.process
def test_the_installers_last_words_are_shown(run: Run, tiny: FakeEngine) -> None:
    next(tiny.wheels.glob("tiny_dependency*")).unlink()
    result = run("env", "install", "tiny", "--hardware", "cpu")
    assert result.exit_code == 1
    assert "Last lines of the installer:" in result.stderr
    assert "tiny-dependency" in result.stderr


@pytest.mark.parametrize("command", ["verify", "remove"])
def test_what_is_not_installed_is_said_with_what_is(run: Run, tiny: FakeEngine, command: str) -> None:
    result = run("env", command, "tiny")
    assert result.exit_code == 1
    assert "No environment for tiny is installed." in result.stderr
    assert "Installed: none." in result.stderr


def test_an_unknown_engine_is_said_with_the_known_ones(run: Run, tiny: FakeEngine) -> None:
    result = run("env", "install", "tinny")
    assert result.exit_code == 1
    assert "Tiny==1.0 (cpu)" in result.stderr


def test_neither_an_engine_nor_a_bundle_is_a_usage_error(run: Run) -> None:
    assert run("env", "install").exit_code == 2


@pytest.mark.process
def test_the_help_loads_no_environment_code() -> None:
    module = "xinference.local_commands.environments"
    script = f"import sys, xinference.cli.commands.environments; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
