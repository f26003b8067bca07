"""Computes the features of images, and passes those of a part of the prompt to the model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from .prompt_images import PromptImages


@dataclass(frozen=True)
class ImageFeatures:
    """The output of a vision tower for the images of one prompt: one row for each place that they fill."""

    output: Any
    """Transformers' own output, whose class the model expects."""
    rows: torch.Tensor
    deeper: tuple[torch.Tensor, ...]
    """Rows that are added to the first layers of the text model (DeepStack); empty: there are none."""

    def part(self, first: int, last: int) -> Any:
        """The output for the rows from `first` to before `last`."""
        rows = self.rows[first:last]
        # Some models expect a tensor of all images, the others a list with a tensor for each image.
        whole = rows[None] if isinstance(self.output.pooler_output, torch.Tensor) else [rows]
        deeper = {"deepstack_features": [[layer[first:last]] for layer in self.deeper]} if self.deeper else {}
        return type(self.output)(pooler_output=whole, **deeper)


@dataclass(frozen=True)
class PartOfImages:
    """The additional input of a pass over a part of a prompt with images."""

    arguments: Mapping[str, Any]
    """Arguments of the model."""
    positions: torch.Tensor | None
    """The positions in time, height and width `[3, token]` of this part, if the model has several."""
    blocks: list[int] | None
    """The number of the image at each position up to the end of this part, if an image's tokens need all of it."""


def part_of_images(
    images: PromptImages, features: ImageFeatures | None, start: int, end: int, *, both_ways: bool
) -> PartOfImages:
    """The input for the positions from `start` to before `end`; `features` may be None after the last image."""
    first, last = bisect_left(images.places, start), bisect_left(images.places, end)
    arguments = {}
    if last > first:
        assert features is not None
        arguments["mm_encoder_outputs"] = {"image": features.part(first, last)}
    positions = None if images.positions is None else images.positions[:, start:end]
    return PartOfImages(arguments, positions, blocks(images.places, end) if both_ways else None)


def encode_images(model: Any, images: PromptImages, dtype: torch.dtype, device: torch.device) -> ImageFeatures:
    """The features of the images.

    Raises:
        ValueError: the tower makes another number of rows than the prompt has places for.
    """
    inputs = {name: _moved(value, dtype, device) for name, value in images.inputs.items()}
    output = model.get_image_features(**inputs, return_dict=True)
    rows = _joined(output.pooler_output)
    if len(rows) != len(images.places):
        raise ValueError(f"the vision tower makes {len(rows)} rows for {len(images.places)} places of the prompt")
    return ImageFeatures(output, rows, tuple(map(_joined, getattr(output, "deepstack_features", None) or ())))


def end_of_block(places: tuple[int, ...], end: int) -> int:
    """The first position from `end` on that is not within an image, whose tokens attend to each other both ways."""
    inside = set(places)
    while end in inside and end - 1 in inside:
        end += 1
    return end


def blocks(places: tuple[int, ...], length: int) -> list[int]:
    """For each of `length` positions the number of its image, -1 outside of images."""
    numbers = [-1] * length
    number = 0
    for n, (before, place) in enumerate(pairwise((-2, *places))):
        number += n > 0 and place != before + 1
        if place < length:
            numbers[place] = number
    return numbers


def _joined(features: Any) -> torch.Tensor:
    if isinstance(features, torch.Tensor):
        return features.reshape(-1, features.shape[-1])
    return torch.cat([each.reshape(-1, each.shape[-1]) for each in features])


def _moved(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
