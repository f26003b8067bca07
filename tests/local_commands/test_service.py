"""The unit files and plists of the service."""

from __future__ import annotations

import os
import plistlib
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from xinference.cli.main import cli
from xinference.client import server_restart
from xinference.config import Settings
from xinference.errors import Problem
from xinference.local_commands import service

SETTINGS = Settings(home=Path("/srv/my home"), drain_seconds=20.0)
ENV = {"XINFERENCE_HOME": "/srv/my home", "XINFERENCE_PORT": "7", "XINFERENCE_ENDPOINT": "http://other",
    "XINFERENCE_API_KEY": "sk-secret", "OTHER": "x",
    "XDG_CONFIG_HOME": "/home/u/.config", "SUDO_USER": "u"}  # fmt: skip


def made(platform: str = "linux", *, is_system: bool = False, user: str | None = None) -> service.Service:
    return service.service_of(SETTINGS, is_system=is_system, user=user, env=ENV, platform=platform)


def test_a_unit_of_the_session_leaves_the_engines_to_the_next_server() -> None:
    unit = made()
    lines = unit.text.decode().splitlines()
    assert unit.path == Path("/home/u/.config/systemd/user/xinference.service")
    for line in ("KillMode=process", "Restart=on-failure", "TimeoutStopSec=60", "WantedBy=default.target"):
        assert line in lines
    assert 'Environment="XINFERENCE_HOME=/srv/my home"' in lines and 'Environment="XINFERENCE_PORT=7"' in lines
    assert not [line for line in lines if line.startswith("User=")]
    assert "sk-secret" not in unit.text.decode() and "http://other" not in unit.text.decode()
    assert unit.start == (
        "systemctl --user daemon-reload", "systemctl --user enable --now xinference", "loginctl enable-linger u",
    )  # fmt: skip


def test_a_unit_of_the_machine_names_its_user() -> None:
    unit = made(is_system=True)
    assert unit.path == Path("/etc/systemd/system/xinference.service")
    assert "User=u\n" in unit.text.decode() and "WantedBy=multi-user.target" in unit.text.decode()
    assert "User=someone\n" in made(is_system=True, user="someone").text.decode()
    assert all("--user" not in line for line in (*unit.start, *unit.end, unit.status))


def test_a_word_of_a_unit_is_quoted() -> None:
    assert service._quoted('a "b" 100% $x\\') == '"a \\"b\\" 100%% $x\\\\"'
    assert service._quoted("$x", is_command=True) == '"$$x"'


def test_a_plist_leaves_the_engines_to_the_next_server() -> None:
    agent = made("darwin")
    entries = plistlib.loads(agent.text)
    assert agent.path == Path.home() / "Library/LaunchAgents/ai.xinference.server.plist"
    assert entries["AbandonProcessGroup"] and entries["RunAtLoad"] and entries["ProgramArguments"][-1] == "serve"
    assert entries["EnvironmentVariables"]["XINFERENCE_HOME"] == "/srv/my home" and "UserName" not in entries
    daemon = made("darwin", is_system=True)
    assert plistlib.loads(daemon.text)["UserName"] == "u" and daemon.path.parts[:3] == ("/", "Library", "LaunchDaemons")


def test_the_server_of_a_service_knows_how_it_is_restarted() -> None:
    assert service.RESTART_VARIABLE == server_restart.RESTART_VARIABLE
    assert f'Environment="{service.RESTART_VARIABLE}=systemctl --user restart xinference"' in made().text.decode()


def test_other_platforms_are_refused() -> None:
    with pytest.raises(Problem, match="are not supported"):
        made("win32")


@pytest.mark.process
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_a_unit_of_the_machine_has_the_home_of_its_user() -> None:
    env = {name: value for name, value in ENV.items() if name != "XINFERENCE_HOME"}
    unit = service.service_of(Settings(), is_system=True, user="root", env=env, platform="linux")
    assert f'Environment="XINFERENCE_HOME={pwd.getpwnam("root").pw_dir}/.xinference"' in unit.text.decode()
    with pytest.raises(Problem, match="There is no user 'nobody-here'"):
        service.service_of(Settings(), is_system=True, user="nobody-here", env=env, platform="linux")


@pytest.mark.process
@pytest.mark.parametrize("is_system", [True, False])
def test_systemd_takes_the_unit(tmp_path: Path, is_system: bool) -> None:
    unit = tmp_path / "xinference.service"
    user = "root" if is_system else None
    unit.write_bytes(made(is_system=is_system, user=user).text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", *([] if is_system else ["--user"]), str(unit)], capture_output=True, text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    ours = [line for line in checked.stderr.splitlines() if "xinference.service" in line]
    assert ours == [], checked.stderr


def test_the_command_writes_shows_and_removes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("XINFERENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    file = tmp_path / "config/systemd/user/xinference.service"

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(cli, ["service", *words])
        return result.exit_code, result.stdout, result.stderr

    assert "not installed" in run("status")[1]
    code, text, said = run("install", "--dry-run")
    assert code == 0 and "KillMode=process" in text and "enable --now xinference" in said and not file.exists()
    assert run("install")[0] == 0 and file.read_text() == text
    assert f"{file}: installed\n" in run("status")[1]
    monkeypatch.setenv("XINFERENCE_PORT", "8")
    assert "installed with other settings" in run("status")[1]
    assert "disable --now" in run("uninstall")[2] and not file.exists()
    assert "There is no" in run("uninstall")[2]
    assert run("install", "--user", "x")[0] == 2
