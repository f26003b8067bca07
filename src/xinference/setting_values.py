"""The values of settings: read from text, and checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.hosts import DomainList
from xinference.log_setup import FORMATS

#: Maximum number of gateway processes; more processes than cores are not faster.
MAX_GATEWAY_WORKERS = 64
#: No machine has more bytes of memory or disk.
MAX_BYTES = 1 << 60
#: Number of characters of a wrong text that an error quotes.
QUOTED = 60
_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_RAY_ADDRESS = re.compile(r"auto|(ray://)?[^/?#@\s]+:[0-9]{1,5}")
#: A browser's `Origin`: a scheme, a host and perhaps a port. A slash at the end is no harm.
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+/?")
_PROXY = re.compile(r"https?://[^/?#@\s*]+/?", re.IGNORECASE)


class Parser(NamedTuple):
    """Reads the text of one setting. `parse` raises ValueError or KeyError for a text that is not `kind`."""

    parse: Callable[[str], Any]
    kind: str


def parse_bytes(text: str) -> int:
    """A number of bytes, with or without a unit: ``1000``, ``24GiB``, ``1.5 GB``.

    Raises:
        ValueError: the text has another form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    size = float(match[1]) * _UNITS[(match[2] or "").lower()]
    if size > MAX_BYTES:
        raise ValueError(text)
    return int(size)


BYTES = Parser(parse_bytes, "a number of bytes, such as 24GiB")
#: The parser of a setting by its type, if the setting has no parser of its own.
PARSERS: Mapping[Any, Parser] = {
    str: Parser(str, "a text"),
    Path: Parser(str, "a path"),
    int: Parser(int, "an integer"),
    float: Parser(float, "a number"),
    bool: Parser(lambda text: _BOOLEANS[text.lower()], "a boolean"),
}


def parse_setting(variable: str, parser: Parser, text: str) -> Any:
    """The value of an environment variable.

    Raises:
        Problem: 400 ``bad_setting``, with the variable, its text and the expected kind of value.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise Problem(
            Code.BAD_SETTING,
            f"{variable} is {quoted(text)}, with quotation marks.",
            hint="Remove them: in a file of variables, Docker takes them as a part of the value.",
        )
    try:
        return parser.parse(text)
    except (ValueError, KeyError):
        cause = f"{variable} is {quoted(text)}, which is not {parser.kind}."
        raise Problem(Code.BAD_SETTING, cause, hint=f"Correct it or unset {variable}.") from None


def quoted(value: object) -> str:
    """A wrong value in an error: its beginning."""
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def parse_host(text: str) -> str:
    """An address or a name to listen on; an IPv6 address may be in brackets, as in a URL.

    Raises:
        Problem: 400 ``bad_setting``: `text` is a URL, or has a port.
    """
    host = text.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1].strip()
    if not host:
        raise bad_request(
            "The host is empty.",
            hint="Use an address, such as 127.0.0.1, or 0.0.0.0 for all addresses of this machine.",
            code=Code.BAD_SETTING,
        )
    if "/" in host or host.count(":") == 1:
        raise bad_request(
            f"The host {quoted(text)} is a URL or has a port, but it must be an address.",
            hint="Use an address, such as 127.0.0.1 or ::1, and give the port with --port.",
            code=Code.BAD_SETTING,
        )
    return host


def check_settings(values: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    """Check the values of settings by name.

    Args:
        variables: the environment variables that have set them, by the name of the setting.

    Raises:
        Problem: 400 ``bad_setting``, with the setting, its value and the values that it may have.
    """
    for name, value in values.items():
        check = _CHECKS.get(name, _NOT_NEGATIVE if isinstance(value, int | float) else None)
        if check is not None:
            check(variables.get(name, name), value)


def _limit(is_valid: Callable[[Any], bool], hint: str) -> Callable[[str, Any], None]:
    """The check of a setting by one condition."""

    def check(name: str, value: Any) -> None:
        if not is_valid(value):
            raise bad_request(f"{name} is {quoted(value)}.", hint=hint, code=Code.BAD_SETTING)

    return check


def _parts(setting: str) -> Iterator[str]:
    return filter(None, map(str.strip, setting.split(",")))


def _check_origins(name: str, setting: str) -> None:
    """An origin of another form is never sent by a browser."""
    for origin in _parts(setting):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise bad_request(
                f"{name} has {quoted(origin)}, which is not an origin of web pages.",
                hint="Write the scheme, the host and the port, such as http://localhost:3000; * means every origin.",
                code=Code.BAD_SETTING,
            )


def _check_addresses(name: str, setting: str) -> None:
    """All are addresses of a proxy: ``*`` would be everybody's."""
    for origin in _parts(setting):
        if not _PROXY.fullmatch(origin):
            raise bad_request(
                f"{name} has {quoted(origin)}, which is not the address of a proxy.",
                hint="Write the scheme, the host and the port, such as https://ai.example.org, without a path.",
                code=Code.BAD_SETTING,
            )


def _check_domains(name: str, setting: str) -> None:
    try:
        DomainList(setting)
    except ValueError as error:
        raise bad_request(
            f"{name} has {quoted(str(error))}, which is not a host.",
            hint="Use names such as example.com or *.example.com, separated by commas, or *.",
            code=Code.BAD_SETTING,
        ) from None


_PORT = _limit(lambda port: 0 <= port <= 65535, "Use a number from 1 to 65535, or 0 for any free port.")
#: That of every number without a check of its own. No comparison with NaN is true.
_NOT_NEGATIVE = _limit(lambda number: number >= 0, "Use a number that is not negative.")
_POSITIVE_SECONDS = _limit(lambda seconds: 0 < seconds < 1e6, "Use a positive number of seconds.")
_POSITIVE = _limit(lambda number: number >= 1, "Use a positive number.")
_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "port": _PORT,
    "supervisor_port": _PORT,
    "worker_port": _PORT,
    "gateway_workers": _limit(
        lambda number: 1 <= number <= MAX_GATEWAY_WORKERS, f"Use a number from 1 to {MAX_GATEWAY_WORKERS}."
    ),
    "ray_address": _limit(
        lambda text: not text or _RAY_ADDRESS.fullmatch(text) is not None,
        "Use auto, the address of Ray's head as HOST:PORT, or ray://HOST:PORT.",
    ),
    "ray_autoscaler_seconds": _limit(lambda seconds: 0 <= seconds < 1e6, "Use a number of seconds, or 0."),
    "allow_origin": _check_origins,
    "allowed_origins": _check_addresses,
    "log_level": _limit(
        lambda text: text.upper() in logging.getLevelNamesMapping(), "Use DEBUG, INFO, WARNING or ERROR."
    ),
    "log_format": _limit(lambda text: text in FORMATS, f"Use {' or '.join(FORMATS)}."),
    "prefix_isolation": _limit(lambda text: text in ("none", "key"), "Use none or key."),
    "head_seconds": _POSITIVE_SECONDS,
    "body_seconds": _POSITIVE_SECONDS,
    "write_seconds": _POSITIVE_SECONDS,
    "idle_seconds": _POSITIVE_SECONDS,
    "media_url_seconds": _POSITIVE_SECONDS,
    "session_idle_seconds": _POSITIVE_SECONDS,
    "session_seconds": _POSITIVE_SECONDS,
    "max_connections": _POSITIVE,
    "max_waiting_connections": _POSITIVE,
    "media_url_bytes": _POSITIVE,
    "allow_media_urls": _check_domains,
}
