"""Prints the options of vLLM's or SGLang's own server as JSON ``{"options": {name: type}}``.

Runs inside that engine's environment and imports no module of Xinference: `python describe_options.py vllm|sglang`. The
output for a locked version is shipped with Xinference, because options are checked before the engine is installed.
Types: ``switch`` (``--x`` or ``--no-x``), ``flag`` (``--x``), ``int``, ``float``, ``str``, ``json``, ``list``.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def main() -> None:
    parser = _vllm() if sys.argv[1] == "vllm" else _sglang()
    options = {}
    for action in parser._actions:
        name = next((flag for flag in action.option_strings if flag.startswith("--")), None)
        if name is not None and action.dest != "help":
            options[name[2:].replace("-", "_")] = _kind(action)
    json.dump({"options": dict(sorted(options.items()))}, sys.stdout, indent=1)
    print()


def _vllm() -> argparse.ArgumentParser:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    return parser


def _sglang() -> argparse.ArgumentParser:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "switch" if isinstance(action, argparse.BooleanOptionalAction) else "flag"
    if action.nargs in ("+", "*"):
        return "list"
    return _value_kind(action.type)


def _value_kind(type_: Any) -> str:
    """A parser's type is a function: its result type follows from its name, or from the function that it wraps."""
    name = getattr(type_, "__name__", str(type_))
    if name in ("int", "float", "str"):
        return name
    if name.startswith("human_readable_int"):
        return "int"
    if name in ("loads", "parse_dataclass", "union_dict_and_str", "json_list_type", "_parse_type"):
        return "json"
    inner = [cell.cell_contents for cell in getattr(type_, "__closure__", None) or ()]
    return _value_kind(inner[0]) if name == "_optional_type" and inner else "str"


if __name__ == "__main__":
    main()
