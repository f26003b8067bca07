"""Reads the files by which sentence-transformers describes an embedding model: modules, limit and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import LoadError

#: The namespace of the modules' types; any other type is a program of the repository.
OWN_MODULES = "sentence_transformers."
#: The names of the file with the limit, one for each architecture of the first releases.
LIMIT_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
#: Fields of old pooling files -> the mode, in the order in which the parts of a vector are joined.
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = tuple(OLD_MODES.values())
#: Names of a pooling in launches -> the mode. `last` is the name of llama.cpp.
MODE_NAMES = {"mean": "mean", "cls": "cls", "last": "lasttoken", "lasttoken": "lasttoken", "max": "max"}
#: Modules without an effect on an answer.
WITHOUT_EFFECT = frozenset({"Dropout"})


@dataclass(frozen=True)
class Pooling:
    """The pooling of the tokens' vectors to one vector."""

    modes: tuple[str, ...] = ("mean",)
    """The parts of the vector, each one of `MODES`."""
    include_prompt: bool = True
    """Whether the tokens of a prompt count."""


@dataclass(frozen=True)
class Stage:
    """A module after the pooling."""

    kind: str
    """``Dense``, ``LayerNorm`` or ``Normalize``."""
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleFiles:
    """The description of an embedding model; without any file, mean pooling of a whole model."""

    transformer: Path
    """The folder of the transformer."""
    pooling: Pooling = field(default_factory=Pooling)
    stages: tuple[Stage, ...] = ()
    max_length: int | None = None
    """Longest input in tokens; None: the model's own limit."""
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    """The texts that a request may put before its inputs, by name."""
    default_prompt: str | None = None
    """The name of the prompt of requests that name none."""


def read_module_files(folder: Path) -> ModuleFiles:
    """Read the files in a model's folder.

    Raises:
        LoadError: a file is not valid, or a module is not supported.
    """
    settings = _object(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts")
    default = settings.get("default_prompt_name")
    named = {str(name): text for name, text in prompts.items() if text} if isinstance(prompts, dict) else {}
    transformer, pooling, stages = _modules(folder)
    limits = next((found for name in LIMIT_FILES if (found := _object(transformer / name))), {})
    most = limits.get("max_seq_length")
    return ModuleFiles(
        transformer=transformer,
        pooling=pooling,
        stages=stages,
        max_length=most if isinstance(most, int) and most > 0 else None,
        lower_case=limits.get("do_lower_case") is True,
        prompts=named,
        default_prompt=default if default in named else None,
    )


def pooling_of(name: str) -> Pooling:
    """The pooling that a launch names.

    Raises:
        LoadError: there is no such pooling.
    """
    mode = MODE_NAMES.get(name.lower())
    if mode is None:
        raise LoadError(f"pooling_type is {name!r}; this server accepts {', '.join(MODE_NAMES)}")
    return Pooling((mode,))


def _modules(folder: Path) -> tuple[Path, Pooling, tuple[Stage, ...]]:
    """The folder of the transformer, the pooling, and the modules after it."""
    modules = _json(folder / "modules.json")
    if modules is None:
        return folder, Pooling(), ()
    try:
        kinds = [(_kind(str(module["type"])), folder / _inside(str(module.get("path") or ""))) for module in modules]
    except (TypeError, KeyError, AttributeError):
        raise LoadError("modules.json is not a list of modules with a type and a path") from None
    kinds = [each for each in kinds if each[0] not in WITHOUT_EFFECT]
    if not kinds or kinds[0][0] != "Transformer":
        raise LoadError("modules.json does not begin with a Transformer; only such models are served")
    transformer, rest = kinds[0][1], kinds[1:]
    pooling = Pooling()
    if rest and rest[0][0] == "Pooling":
        pooling, rest = _pooling(_object(rest[0][1] / "config.json")), rest[1:]
    return transformer, pooling, tuple(_stage(kind, path) for kind, path in rest)


def _kind(type_name: str) -> str:
    if not type_name.startswith(OWN_MODULES):
        raise LoadError(f"modules.json names {type_name}, a program of the repository, which is not executed here")
    return type_name.rpartition(".")[2]


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in Path(path).parts:
        raise LoadError(f"modules.json names the path {path!r}, which is outside of the model's folder")
    return path


def _stage(kind: str, folder: Path) -> Stage:
    if kind not in ("Dense", "LayerNorm", "Normalize"):
        raise LoadError(f"modules.json has a module {kind}, which this server does not have")
    options = _object(folder / "config.json") if kind != "Normalize" else {}
    used = [options.get(name, "sentence_embedding") for name in ("module_input_name", "module_output_name")]
    if any(name not in (None, "sentence_embedding") for name in used):
        raise LoadError(f"{folder.name} computes {used[1] or used[0]}, which this server does not have")
    return Stage(kind, folder, options)


def _pooling(options: Mapping[str, Any]) -> Pooling:
    modes = options.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in OLD_MODES.items() if options.get(name)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in MODES for mode in modes):
        raise LoadError(f"the pooling {modes!r} is not one of {', '.join(MODES)}")
    return Pooling(tuple(modes), options.get("include_prompt") is not False)


def _object(path: Path) -> dict[str, Any]:
    """A file's JSON object; {} if there is no file."""
    value = _json(path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise LoadError(f"{path.name} is not a JSON object")
    return value


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path.name} is not JSON: {error}") from None
