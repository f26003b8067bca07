"""The log levels of the server."""

from __future__ import annotations

import click

LOG_LEVEL = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)
