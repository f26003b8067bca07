"""Options of the engine on the command line of `launch`: ``--n-ctx 4096`` becomes ``n_ctx = 4096``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near

_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?")
_WORDS = {"None": None, "none": None, "True": True, "true": True, "False": False, "false": False}

#: Short options of the engines' own commands, as people paste them -> what they are here.
_SHORT_OPTIONS = {
    "-c": "--n_ctx",
    "-np": "--n_parallel",
    "-ngl": "--n_gpu_layers",
    "-b": "--n_batch",
    "-ub": "--n_ubatch",
    "-fa": "--flash_attn",
    "-m": "--model-path",
    "-hf": "--model-name",
    "-hfr": "--model-name",
    "-tp": "--n-gpu",
}


#: Options of other servers that are no option of a model here -> what takes their place.
_OTHERS_OPTIONS = {
    "host": "`xinference serve --host` sets the address of the server.",
    "port": "`xinference serve --port` sets the port of the server, which all models share.",
    "served_model_name": "--model-uid sets the name of the model in requests, and --alias another one.",
}

#: Maximum number of options that a hint names: those of the engine first, then those of the command.
MAX_SIMILAR = 4


class LaunchCommand(click.Command):
    """A command that parses its own options, and puts all other ``--key value`` pairs into ``ctx.obj``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values = {
            name: 0 if isinstance(option, click.Option) and (option.is_flag or option.count) else option.nargs
            for option in self.get_params(ctx)
            for name in [*option.opts, *option.secondary_opts]
        }
        arguments = sum(isinstance(param, click.Argument) for param in self.get_params(ctx))
        try:
            own, ctx.obj = split(args, values, arguments)
        except click.UsageError as error:
            error.ctx = ctx
            raise
        return super().parse_args(ctx, own)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Problem as problem:
            if problem.code not in (Code.UNKNOWN_OPTION, Code.BAD_OPTION):
                raise
            for key, hint in _OTHERS_OPTIONS.items():
                if key in ctx.obj and re.search(rf"--{key}(\.$| is reserved)", problem.cause):
                    raise problem.replace(hint=hint) from None
            if problem.code == Code.BAD_OPTION:
                raise
            own = [name for option in self.get_params(ctx) for name in option.opts if name.startswith("--")]
            unknown = [key for key in ctx.obj if f"--{key} " in problem.cause or f"--{key}." in problem.cause]
            similar = [name for key in unknown for name in similar_options(key, own)]
            if not similar:
                raise
            of_engine = re.findall(r"--\w+(?:\.\w+)*", problem.hint or "")
            meant = [*dict.fromkeys([*of_engine, *similar])]
            hint = f"Did you mean {join_names(meant[:MAX_SIMILAR])}? See `{ctx.command_path} --help`."
            raise problem.replace(hint=hint) from None


def similar_options(key: str, own: Sequence[str]) -> list[str]:
    """The options of the command that a user may have meant with the unknown option `key`, at most three.

    >>> similar_options("quant", ["--quantization", "--model-engine", "--model-uid"])
    ['--quantization']
    >>> similar_options("engine", ["--quantization", "--model-engine", "--model-uid"])
    ['--model-engine']
    """
    word = key.replace("_", "-").lower()
    names: dict[str, str] = {}
    for name in own:
        names.setdefault(name.removeprefix("--").replace("_", "-"), name)
    parts = [name for name in names if name.endswith(f"-{word}") or name.startswith(word) or word.startswith(name)]
    return [names[name] for name in parts or near(word, names)][:3]


def split(args: Sequence[str], values: Mapping[str, int], arguments: int = 0) -> tuple[list[str], dict[str, Any]]:
    """Split the arguments into those of the command and the engine's options.

    Args:
        values: the options of the command, with the number of values of each.
        arguments: the maximum number of words without an option.

    Raises:
        click.UsageError: an argument belongs to no option.
    """
    own: list[str] = []
    native: dict[str, Any] = {}
    words = _Words(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in values and name.replace("_", "-") in values:
            name = name.replace("_", "-")
        if name in values and (not equals or name.startswith("--")):
            own.append(name + equals + value)
            for _ in range(values[name] - bool(equals)):
                if (following := words.following()) is not None:
                    own.append(following)
        elif re.fullmatch(r"--\w[\w.-]*", name):
            key = name[2:].replace("-", "_")
            native[key] = parse_value(value) if equals else _value_after(words)
        elif word.startswith("-"):
            meant = _SHORT_OPTIONS.get(name)
            hint = f"Did you mean {meant}?" if meant else "Options of the engine start with `--`."
            raise click.UsageError(f"No such option: {word}. {hint}")
        elif arguments > 0:
            arguments -= 1
            own.append(word)
        else:
            raise click.UsageError(f"Unexpected argument {word!r}. Options of the engine are written --KEY VALUE.")
    return own, native


class _Words:
    """An iterator over the arguments that can peek at the next one."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = args
        self._at = 0

    def __iter__(self) -> _Words:
        return self

    def __next__(self) -> str:
        word = self.following()
        if word is None:
            raise StopIteration
        return word

    def peek(self) -> str | None:
        return self._args[self._at] if self._at < len(self._args) else None

    def following(self) -> str | None:
        word = self.peek()
        self._at += word is not None
        return word


def _value_after(words: _Words) -> Any:
    following = words.peek()
    if following is None or (following.startswith("-") and not _is_number(following)):
        return True
    words.following()
    return parse_value(following)


def _is_number(text: str) -> bool:
    return bool(_INT.fullmatch(text) or _FLOAT.fullmatch(text))


def parse_value(text: str) -> Any:
    """None, a boolean, a number, a JSON object or list; otherwise the text itself.

    >>> [parse_value(text) for text in ("none", "True", "7", "0.5", '{"a": 1}', "1_8", "q8_0")]
    [None, True, 7, 0.5, {'a': 1}, '1_8', 'q8_0']
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
