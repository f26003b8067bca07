"""The log levels that a server can be told on the command line."""

from __future__ import annotations

import click

LOG_LEVEL = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)
