"""Xinference's own options as SGLang's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.engines.base import ExtraWeightFile
from xinference.engines.draft_weights import draft_weights
from xinference.engines.options.speculation import read_speculation, refuse_both, without_speculation

#: SGLang's method for a draft model that was made for the model, and for the model's own layers.
ALGORITHM = "NEXTN"
#: Methods that draft from the text itself.
WITHOUT_WEIGHTS = frozenset({"NGRAM"})


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launch, with those that have the same name on every engine under SGLang's names.

    Raises:
        Problem: 400 ``bad_option``.
    """
    own = without_speculation(options)
    speculation = read_speculation(options)
    if speculation is None:
        return own
    drafted = {
        "speculative_draft_model_path": speculation.draft,
        "speculative_draft_model_quantization": speculation.quantization,
        **_steps(speculation.tokens),
    }
    for name, value in drafted.items():
        if value is not None:
            refuse_both(options, name)
            own[name] = value
    own.setdefault("speculative_algorithm", ALGORITHM)
    return own


def _steps(tokens: int | None) -> dict[str, int]:
    """The number of draft tokens in one chain, which counts the token of the model itself, as in Xinference 4.1.0."""
    if tokens is None:
        return {}
    return {
        "speculative_num_steps": max(1, tokens - 1),
        "speculative_eagle_topk": 1,
        "speculative_num_draft_tokens": tokens,
    }


def draft_files(options: Mapping[str, Any], path: Path) -> tuple[ExtraWeightFile, ...]:
    """The weights that draft tokens in a launch with these options; `path` is that of the model's weights."""
    algorithm, draft = options.get("speculative_algorithm"), options.get("speculative_draft_model_path")
    if str(algorithm or "").upper() in WITHOUT_WEIGHTS or not (algorithm or draft):
        return ()
    return draft_weights(path, str(draft) if draft else None)
