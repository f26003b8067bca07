"""Translates the user's pip configuration for uv, which does not read pip's files or variables."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem

#: Variables for indexes, passwords and connections. None of them changes which packages are installed.
_PASSED_UV_VARIABLES = (
    *("UV_CACHE_DIR", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_KEYRING_PROVIDER"),
    *("UV_HTTP_", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_INSECURE_HOST", "UV_CONCURRENT_", "UV_LINK_MODE"),
    *("UV_PYTHON_DOWNLOADS", "UV_PYTHON_INSTALL_", "UV_REQUEST_TIMEOUT"),
)


@dataclass(frozen=True)
class UvSettings:
    """Flags and variables with which uv fetches packages as pip would."""

    indexes: tuple[str, ...]
    """Flags."""
    find_links: tuple[str, ...]
    """Flags."""
    hosts: tuple[str, ...]
    """Flags."""
    variables: Mapping[str, str]
    """The complete environment of the process."""

    @property
    def flags(self) -> tuple[str, ...]:
        return (*self.indexes, *self.find_links, *self.hosts)


def uv_settings(environ: Mapping[str, str] = os.environ) -> UvSettings:
    """Read pip's configuration and translate it.

    Raises:
        Problem: 400 ``bad_pip_configuration``, with pip's own message.
    """
    run = subprocess.run(
        # -P: a file named pip.py in the working folder is not pip.
        [sys.executable, "-P", "-m", "pip", "config", "list"],
        env={**environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        tail = run.stderr.strip().splitlines()[-5:]
        raise Problem(Code.BAD_PIP_CONFIGURATION, "pip cannot read its own configuration.", log_tail=tail)
    return translate(parse(run.stdout.splitlines()), environ)


def parse(lines: Iterable[str]) -> dict[str, str]:
    """Option -> value from the lines of ``pip config list``.

    As in pip itself, a value of ``install`` overrides ``global``, and a PIP_* variable overrides both.
    """
    ranks = {"global": 0, "install": 1, ":env:": 2}
    entries: list[tuple[int, str, str]] = []
    for line in lines:
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ranks:
            entries.append((ranks[section], option, str(ast.literal_eval(value))))
    return {option: value for _, option, value in sorted(entries, key=lambda entry: entry[0])}


def translate(options: Mapping[str, str], environ: Mapping[str, str]) -> UvSettings:
    """pip's options as uv's flags and variables. pip's version preferences have no effect on a lock."""
    return UvSettings(
        indexes=tuple(_indexes(options)),
        find_links=tuple(_flags("--find-links", map(_absolute, options.get("find-links", "").split()))),
        hosts=tuple(_flags("--allow-insecure-host", options.get("trusted-host", "").split())),
        variables=_variables(options, environ),
    )


def _indexes(options: Mapping[str, str]) -> Iterable[str]:
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return ("--no-index",)
    main = options.get("index-url", "").split()[:1]
    extra = options.get("extra-index-url", "").split()
    # The hashes decide which files are installed, so any index may provide them.
    return (*_flags("--default-index", main), *_flags("--index", extra), "--index-strategy", "unsafe-best-match")


def _variables(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    variables = {
        name: value
        for name, value in environ.items()
        if name.startswith(_PASSED_UV_VARIABLES) or not name.startswith(("UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_"))
    }
    if cert := options.get("cert"):
        variables["SSL_CERT_FILE"] = _absolute(cert)
    if client_cert := options.get("client-cert"):
        variables["SSL_CLIENT_CERT"] = _absolute(client_cert)
    if proxy := options.get("proxy"):
        url = proxy if "://" in proxy else f"http://{proxy}"  # pip accepts both forms
        variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), url)
    timeout = options.get("timeout") or options.get("default-timeout")
    if timeout and "UV_HTTP_TIMEOUT" not in environ:
        variables["UV_HTTP_TIMEOUT"] = str(max(1, round(float(timeout))))
    if options.get("keyring-provider") == "subprocess":
        variables["UV_KEYRING_PROVIDER"] = "subprocess"
    return variables


def _absolute(path: str) -> str:
    """An absolute path: uv runs in another folder than the one of the relative path."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _flags(flag: str, values: Iterable[str]) -> Iterable[str]:
    for value in values:
        yield from (flag, value)
