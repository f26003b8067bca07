"""The service that starts the server with the machine or with the user's session: a systemd unit or a launchd plist."""

from __future__ import annotations

import errno
import getpass
import os
import plistlib
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from xinference.config import DEFAULT_HOME, ENV_PREFIX, Settings
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.files.write_errors import write_problem

NAME = "xinference"
LABEL = "ai.xinference.server"
#: Variable of the service: the command that restarts it, for `xinference restart`.
RESTART_VARIABLE = "XINFERENCE_SERVICE_RESTART"
#: Seconds that the server gets to end, in addition to the time of its open answers.
END_SECONDS = 40


@dataclass(frozen=True)
class Service:
    """One service: its file, and the commands of its service manager."""

    path: Path
    text: bytes
    start: tuple[str, ...]
    """The commands that start it, now and later, after the file is written."""
    end: tuple[str, ...]
    """The commands that end it, before the file is removed."""
    status: str


def service_of(
    settings: Settings, *, is_system: bool, user: str | None, env: Mapping[str, str], platform: str = sys.platform
) -> Service:
    """The service of this installation with the settings of the environment.

    Raises:
        Problem: 501, the platform has neither systemd nor launchd; 400, there is no such user.
    """
    if is_system and not env.get(f"{ENV_PREFIX}HOME"):
        settings = replace(settings, home=_home(user or _user(env)))
    if platform == "darwin":
        return _launchd(settings, is_system, user, env)
    if platform.startswith("linux"):
        return _systemd(settings, is_system, user, env)
    raise Problem(Code.NOT_HERE, f"Services on {platform} are not supported.", hint="Use `xinference serve`.")


def install(service: Service) -> None:
    """Write the file of a service.

    Raises:
        Problem: the file can't be written.
    """
    try:
        service.path.parent.mkdir(parents=True, exist_ok=True)
        service.path.write_bytes(service.text)
    except OSError as error:
        raise _unwritable(error, service) from None


def uninstall(service: Service) -> bool:
    """Remove the file of a service; returns whether there was one.

    Raises:
        Problem: the file can't be removed.
    """
    try:
        service.path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(error, service) from None
    return True


def _unwritable(error: OSError, service: Service) -> Problem:
    problem = write_problem(error, service.path)
    return (
        problem.replace(hint="Run the command as root, or leave out --system.")
        if error.errno == errno.EACCES
        else problem
    )


def _systemd(settings: Settings, is_system: bool, user: str | None, env: Mapping[str, str]) -> Service:
    control = "systemctl" if is_system else "systemctl --user"
    configuration = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = Path("/etc/systemd/system") if is_system else configuration / "systemd" / "user"
    variables = _variables(settings, env, f"{control} restart {NAME}")
    lines = [
        "# Written by `xinference service install`.",
        "[Unit]",
        "Description=Xinference, a server of language models",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        *([f"User={user or _user(env)}"] if is_system else []),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()),
        f"ExecStart={' '.join(_quoted(word, is_command=True) for word in _command())}",
        "# Only the server gets the signal: its engines keep running, and the next server takes them over.",
        "KillMode=process",
        f"TimeoutStopSec={int(settings.drain_seconds) + END_SECONDS}",
        "Restart=on-failure",
        "LimitNOFILE=65536",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if is_system else 'default.target'}",
        "",
    ]
    linger = () if is_system else (f"loginctl enable-linger {_user(env)}",)
    return Service(
        folder / f"{NAME}.service",
        "\n".join(lines).encode(),
        (f"{control} daemon-reload", f"{control} enable --now {NAME}", *linger),
        (f"{control} disable --now {NAME}",),
        f"{control} status {NAME}",
    )


def _launchd(settings: Settings, is_system: bool, user: str | None, env: Mapping[str, str]) -> Service:
    folder = Path("/Library/LaunchDaemons") if is_system else Path.home() / "Library" / "LaunchAgents"
    path = folder / f"{LABEL}.plist"
    domain = "system" if is_system else "gui/$(id -u)"
    entries = {
        "Label": LABEL,
        "ProgramArguments": _command(),
        "EnvironmentVariables": _variables(settings, env, f"launchctl kickstart -k {domain}/{LABEL}"),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        # Otherwise launchd ends the engines together with the server.
        "AbandonProcessGroup": True,
        "ExitTimeOut": int(settings.drain_seconds) + END_SECONDS,
        "StandardErrorPath": str(settings.log_dir / "server.log"),
    }
    if is_system:
        entries["UserName"] = user or _user(env)
    return Service(
        path,
        plistlib.dumps(entries),
        (f"launchctl bootstrap {domain} {path}",),
        (f"launchctl bootout {domain}/{LABEL}",),
        f"launchctl print {domain}/{LABEL}",
    )


def _command() -> list[str]:
    return [sys.executable, "-m", "xinference.cli.main", "serve"]


def _variables(settings: Settings, env: Mapping[str, str], restart: str) -> dict[str, str]:
    """The settings of the environment, so that the service has the same; `endpoint` is one of commands only."""
    names = [f"{ENV_PREFIX}{each.name.upper()}" for each in fields(Settings) if each.name not in ("home", "endpoint")]
    given = {name: env[name] for name in names if env.get(name)}
    return {f"{ENV_PREFIX}HOME": str(settings.home), **given, RESTART_VARIABLE: restart}


def _user(env: Mapping[str, str]) -> str:
    """The user of the service: the one who called sudo, else that of this process."""
    return env.get("SUDO_USER") or (getpass.getuser() if os.getuid() else "root")


def _home(user: str) -> Path:
    """The default data folder of the user that a service of the machine runs as.

    Raises:
        Problem: 400, there is no such user.
    """
    try:
        return Path(pwd.getpwnam(user).pw_dir) / DEFAULT_HOME
    except KeyError:
        raise bad_request(
            f"There is no user {user!r} on this machine.", hint="Create the user, or give another one with --user."
        ) from None


def _quoted(word: str, *, is_command: bool = False) -> str:
    """A word of a unit file: quoted, with its specifiers and, in a command, its variables escaped."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$") if is_command else text}"'
