"""The images of a prompt: from the processor of a vision model, for its vision tower."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from .content_parts import ImagePart
from .errors import LoadError, RefusedError
from .image_files import decode_images
from .image_limits import MAX_TOKENS

#: Inputs of the text model; all others belong to the vision tower.
_OF_TEXT = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
#: Files of which a folder with a processor has at least one.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(eq=False)
class PromptImages:
    """The images of one prompt, as a model reads them."""

    inputs: Mapping[str, Any]
    """The arguments of the vision tower, until all sequences with this prompt have computed it."""
    places: tuple[int, ...]
    """The positions of the prompt that the images fill, ascending."""
    key: int
    """A negative number, which is the same for equal images only."""
    positions: torch.Tensor | None = None
    """The positions in time, height and width `[3, token]` of the prompt, if the model has several (M-RoPE)."""
    users: int = 1
    """The sequences that have not computed this prompt yet."""

    def release(self) -> None:
        """One of the sequences has computed the prompt, or has ended; pixels take much more memory than tokens."""
        self.users -= 1
        if self.users <= 0:
            self.inputs = {}

    @property
    def offset(self) -> int:
        """The number that is added to a place after the prompt to get its position."""
        if self.positions is None:
            return 0
        return int(self.positions.max()) + 1 - int(self.positions.shape[1])


class ImageProcessor:
    """The processor of one model with its own tokenizer. Used by one thread at a time."""

    def __init__(self, processor: Any, model: Any) -> None:
        self._processor = processor
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._rope_index = getattr(base.model, "get_rope_index", None)
        self._token = base.config.image_token_id
        if not isinstance(self._token, int):
            raise LoadError(f"{type(base).__name__} has no token for images")
        self._written = str(processor.tokenizer.convert_ids_to_tokens(self._token))

    @property
    def chat_template(self) -> str | None:
        """The template in the processor's files."""
        template = self._processor.chat_template
        return template.get("default") if isinstance(template, dict) else template

    @property
    def marker(self) -> str:
        """The text that stands for an image in a prompt."""
        return str(getattr(self._processor, "boi_token", None) or self._processor.image_token)

    def encode(self, text: str, parts: Sequence[ImagePart]) -> tuple[list[int], PromptImages]:
        """The tokens of a rendered conversation, and its images. Slow: run it in a thread.

        Raises:
            RefusedError: 400: an image that cannot be decoded, or a text whose marks of images are not those of the
                request.
        """
        if self._written != self.marker and self._written in text:  # processors only count their own marks
            cause = f"messages: a text has {self._written}, which is the model's token of an image."
            raise RefusedError(cause, code="invalid_media", param="messages")
        images = decode_images(parts)
        try:
            inputs = self._processor(
                images=images, text=[text], return_tensors="pt", add_special_tokens=self.adds_special(text)
            )
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            cause = f"messages: the model's processor refuses the images: {str(error)[:300]}"
            raise RefusedError(cause, code="invalid_media", param=parts[0].at) from None
        tokens = inputs["input_ids"][0].tolist()
        places = tuple(n for n, token in enumerate(tokens) if token == self._token)
        if not places:
            raise RefusedError("messages: the chat template writes no place for the images.", param=parts[0].at)
        if len(places) > MAX_TOKENS:
            cause = f"the images of a prompt have at most {MAX_TOKENS} tokens, and these have {len(places)}"
            raise RefusedError(f"messages: {cause}.", code="invalid_media", param=parts[0].at)
        return tokens, PromptImages(
            {name: value for name, value in inputs.items() if name not in _OF_TEXT},
            places,
            _key(parts),
            self._positions(inputs),
        )

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer adds its special tokens, because the template has written none; as in transformers."""
        begin = self._processor.tokenizer.bos_token
        return begin is None or not text.startswith(begin)

    def _positions(self, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        if self._rope_index is None:
            return None
        grids = {name: value for name, value in inputs.items() if name.endswith("_grid_thw")}
        positions, _ = self._rope_index(inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], **grids)
        whole: torch.Tensor = positions[:, 0]
        return whole


def load_processor(path: str, model: Any) -> ImageProcessor | None:
    """The processor in the folder `path`; None: the folder has none, so the model reads text alone.

    Raises:
        LoadError: transformers has no processor for this model.
    """
    if not any((Path(path) / name).is_file() for name in _PROCESSOR_FILES):
        return None
    kind = str(json.loads((Path(path) / "config.json").read_text())["model_type"])
    names = PROCESSOR_MAPPING_NAMES.get(kind)
    name = names[0] if isinstance(names, tuple | list) else names
    if name is None:
        raise LoadError(f"transformers has no processor for models of the type {kind}")
    if name == "SmolVLMProcessor":
        _without_number_words()
    processor = _images_only(processor_class_from_name(name)).from_pretrained(path, local_files_only=True)
    return ImageProcessor(processor, model)


def _images_only(kind: Any) -> Any:
    """The class of a processor, with Pillow's image processor, and without one for videos, which needs torchvision."""

    class Processor(kind):
        @classmethod
        def _get_arguments_from_pretrained(cls, path: str, processor_dict: Any = None, **kwargs: Any) -> list[Any]:
            parts = {
                "image_processor": lambda: AutoImageProcessor.from_pretrained(
                    path, backend="pil", local_files_only=True
                ),
                "tokenizer": lambda: AutoTokenizer.from_pretrained(path, local_files_only=True),
            }
            return [parts[name]() if name in parts else None for name in cls.get_attributes()]

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(None) if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    return Processor


def _without_number_words() -> None:
    """SmolVLM's processor requires a package that writes the number of a video's frames in words."""
    module: Any = importlib.import_module("transformers.models.smolvlm.processing_smolvlm")
    module.num2words = module.num2words or str


def _key(parts: Sequence[ImagePart]) -> int:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part.url)}:".encode())
        digest.update(part.url.encode(errors="surrogatepass"))
    return -1 - int.from_bytes(digest.digest()[:8], "big")
