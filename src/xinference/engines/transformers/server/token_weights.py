"""Loads the layer by which BGE-M3 weighs the tokens of a text."""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import LoadError
from .loading import SPARSE_LAYER


def load_token_weights(folder: Path, hidden: int, device: torch.device) -> torch.nn.Linear | None:
    """The layer; None: the folder has none.

    Raises:
        LoadError: the file has another layer.
    """
    file = folder / SPARSE_LAYER
    if not file.is_file():
        return None
    from safetensors.torch import load_file

    layer = torch.nn.Linear(hidden, 1)
    try:
        layer.load_state_dict(load_file(str(file)))
    except Exception as error:  # noqa: BLE001 -- torch raises errors of many kinds for a file that is not valid
        raise LoadError(f"{file} is not a layer from {hidden} numbers to one: {error}") from None
    return layer.float().to(device).eval()
