"""Xinference's own options as vLLM's. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.engines.base import ExtraWeightFile
from xinference.engines.draft_weights import draft_weights
from xinference.engines.options.speculation import read_speculation, refuse_both, without_speculation

#: vLLM's method for a draft model that was made for the model, and for the model's own layers.
METHOD = "mtp"
#: Tokens that are drafted at a time where the launch names no number, as in Xinference 4.1.0.
TOKENS = 1
#: Methods that draft from the text itself.
WITHOUT_WEIGHTS = frozenset({"ngram", "ngram_gpu", "suffix"})


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launch, with those that have the same name on every engine under vLLM's names.

    Raises:
        Problem: 400 ``bad_option``.
    """
    own = without_speculation(options)
    speculation = read_speculation(options)
    if speculation is None:
        return own
    for name in ("speculative_config", "spec_model", "spec_tokens"):
        refuse_both(options, name)
    config: dict[str, Any] = {
        "method": own.pop("spec_method", None) or METHOD,
        "num_speculative_tokens": speculation.tokens or TOKENS,
    }
    if speculation.draft is not None:
        config["model"] = speculation.draft
    if speculation.quantization is not None:
        config["quantization"] = speculation.quantization
    return {**own, "speculative_config": config}


def draft_files(options: Mapping[str, Any], path: Path) -> tuple[ExtraWeightFile, ...]:
    """The weights that draft tokens in a launch with these options; `path` is that of the model's weights."""
    config = options.get("speculative_config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError):
            config = None
    given: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    method = str(given.get("method") or options.get("spec_method") or "")
    draft = given.get("model") or options.get("spec_model")
    if method in WITHOUT_WEIGHTS or not (draft or method):
        return ()
    return draft_weights(path, str(draft) if draft else None)
