"""`xinference usage`: the requests and tokens by model, key and time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.completion import complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, print_json
from xinference.cli.table import print_table

Json = dict[str, Any]

GROUPS = ("model", "key", "path", "status", "minute", "hour", "day")
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d{1,6})([mhd])")


def _read_groups(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in GROUPS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(GROUPS)}.")
    if len({"minute", "hour", "day"}.intersection(names)) > 1:
        raise click.BadParameter("use only one of minute, hour and day.")
    return names


def _read_time(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    if match := _AGO.fullmatch(text):
        return max(0.0, time.time() - int(match[1]) * _UNITS[match[2]])
    try:
        at = datetime.fromisoformat(text)
        return max(0.0, (at if at.tzinfo is not None else at.astimezone()).timestamp())
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{text!r} is not a time such as 30m, 24h, 7d or 2026-11-29.") from None


@click.command()
@click.option(
    "--by",
    "groups",
    default="model",
    show_default=True,
    callback=_read_groups,
    metavar="NAMES",
    help="Fields of a row: model, key, path, status, and minute, hour or day (UTC), separated by commas.",
)
@click.option(
    "--since",
    default="24h",
    show_default=True,
    callback=_read_time,
    metavar="TIME",
    help="Only requests since this time: 30m, 24h, 7d or a date. The server keeps 30 days.",
)
@click.option("--until", callback=_read_time, metavar="TIME", help="Only requests until this time. [default: now]")
@click.option("--model", metavar="UID", shell_complete=complete_uid, help="Only requests to this model.")
@click.option("--key", metavar="NAME", help="Only requests with this key.")
@wide_option
@json_option
@with_server_options
def usage(
    target: Target,
    groups: list[str],
    since: float,
    until: float | None,
    model: str | None,
    key: str | None,
    wide: bool,
    as_json: bool,
) -> None:
    """Show the requests and tokens of each model, key or day.

    \b
    A key without the scopes manage and monitor sees its own requests.
    Example:
      xinference usage --by key,day --since 7d
    """
    with target.connect() as client:
        rows = client.usage(",".join(groups), since, until, model, key)
    if as_json:
        print_json(rows)
        return
    header = (
        *(group.capitalize() for group in groups),
        "Requests",
        "Prompt",
        "Cached",
        "Output",
        "TTFT p50",
        "TTFT p95",
    )
    optional = ("TTFT p95", "Cached", "TTFT p50", "Tokens/s")
    print_table((*header, "Tokens/s"), [_row(row, groups) for row in rows], wide=wide, optional=optional)
    if not rows:
        note("No request has ended in this time.")
    if any(row["estimated"] for row in rows):
        note("~: the engine did not report the tokens of some answers, so their output is estimated.")


def _row(row: Json, groups: list[str]) -> list[Any]:
    each = row["per_token_p50"]
    return [
        *(_group(row, group) for group in groups),
        row["requests"],
        row["prompt_tokens"],
        row["cached_tokens"],
        f"{'~' if row['estimated'] else ''}{row['output_tokens']}",
        _seconds(row["first_token_p50"]),
        _seconds(row["first_token_p95"]),
        None if not each else f"{1 / each:.1f}",
    ]


def _group(row: Json, group: str) -> Any:
    if group == "key":
        return row.get("key") or row.get("key_id")
    if group in ("minute", "hour", "day"):
        at = datetime.fromtimestamp(row["time"], UTC)
        return at.strftime("%Y-%m-%d" if group == "day" else "%Y-%m-%d %H:%M")
    return row.get(group)


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.2f} s"
