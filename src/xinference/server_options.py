"""The options of a server, as one value: those of the programs that start one, and of its own process."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from xinference.config import Settings


@dataclass(frozen=True)
class ServerOptions:
    """The given options of a server; the settings decide what is None or False."""

    host: str | None = None
    port: int | None = None
    log_level: str | None = None
    allow_unauthenticated: bool = False
    home: str | None = None
    gateway_workers: int | None = None
    allow_origin: str | None = None
    """Several origins are separated by commas."""
    log_format: str | None = None
    access_log: bool = False
    allow_media_urls: str | None = None
    prefix_isolation: str | None = None
    no_shared_beginnings: bool = False
    cluster: bool = False
    supervisor_port: int | None = None
    no_models: bool = False
    ray_address: str | None = None
    ray_nodes: str | None = None
    """Several names are separated by commas."""
    ray_autoscaler_seconds: float | None = None

    def overrides(self) -> dict[str, Any]:
        """The arguments of `Settings.from_env`; None: not given. An absent flag is not given."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        without_sharing = values.pop("no_shared_beginnings")
        given = {name: None if value is False else value for name, value in values.items()}
        return {**given, "shared_beginnings": False if without_sharing else None}

    def settings(self) -> Settings:
        """The settings of the server.

        Raises:
            Problem: as `Settings.from_env`.
        """
        return Settings.from_env(**self.overrides())

    def words(self) -> list[str]:
        """The options in the command line of the server, without its host, its port and its home."""
        words: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in ("host", "port", "home") and value:
                words += [_option(each.name)] if value is True else [_option(each.name), str(value)]
        return words

    @classmethod
    def of_words(cls, words: Sequence[str]) -> ServerOptions:
        """The options in the command line of ``python -m xinference.server``, which ends for other words."""
        parser = argparse.ArgumentParser(prog="xinference.server", allow_abbrev=False)
        for name, kind in get_type_hints(cls).items():
            if kind is bool:
                parser.add_argument(_option(name), action="store_true")
            else:
                parser.add_argument(_option(name), type=next(each for each in (int, float, str) if kind == each | None))
        return cls(**vars(parser.parse_args(words)))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
