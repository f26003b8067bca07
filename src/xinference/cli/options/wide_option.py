"""The option ``--wide`` of commands that print a table."""

from __future__ import annotations

import click

wide_option = click.option("--wide", is_flag=True, help="Show all columns, even if they do not fit the terminal.")
