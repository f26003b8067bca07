"""The option ``--wide`` of commands that print a table."""

from __future__ import annotations

import click

wide_option = click.option("--wide", is_flag=True, help="Show all columns, also beyond the width of the terminal.")
