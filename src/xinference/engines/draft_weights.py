"""The weights that draft tokens for an engine that reads folders, so that a plan has their memory. Pure."""

from __future__ import annotations

from pathlib import Path

from xinference.engines.base import ExtraWeightFile


def draft_weights(path: Path, draft: str | None) -> tuple[ExtraWeightFile, ...]:
    """The weights that draft tokens, for `Engine.extra_weight_files`, on an engine that reads folders.

    Args:
        path: that of the model's weights.
        draft: the folder of the draft model; None: layers of the model draft. The id of a repository adds nothing:
            its files are not known before its download.
    """
    if draft is None:
        return (ExtraWeightFile(path, "layers that draft tokens", None, "", has_cache=True, is_own_layers=True),)
    folder = Path(draft)
    if not folder.is_absolute():
        return ()
    return (ExtraWeightFile(folder, "draft model", None, "", has_cache=True),)
