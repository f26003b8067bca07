"""How the makers of GGUF and ggmlv3 files stored a model, where that depends on the maker or the year. Pure."""

from __future__ import annotations

import re

import msgspec

from xinference.catalog.models import ModelShapeFacts, ModelVersion

#: Publisher of GGUF files of 2023, when llama.cpp stored Q2_K with more bits, and the output matrix of every model.
_EARLY_PUBLISHER = "TheBloke/"
#: Repositories whose files have the output matrix besides the embedding matrix, although both are one matrix in the
#: trained weights. Qwen's own files of these versions; those of Qwen2 and Qwen3 store it once, and so do the files of
#: other publishers, whose converter omits it.
_STORES_OUTPUT = re.compile(r"qwen/qwen(1\.5|2\.5)-.*-gguf|TheBloke/.*", re.IGNORECASE)


def are_early(version: ModelVersion) -> bool:
    """Whether the files of a version are of 2023: ggmlv3, and the GGUF files of the publisher of that time."""
    sources = version.spec.sources
    return version.spec.model_format == "ggmlv3" or any(s.model_id.startswith(_EARLY_PUBLISHER) for s in sources)


def stored_shape(version: ModelVersion) -> ModelShapeFacts | None:
    """The shape of a version as its files store it: some have a matrix twice. None: the shape is not known."""
    shape = version.spec.shape
    if shape is None or not shape.tied or version.spec.model_format != "ggufv2":
        return shape
    if not any(_STORES_OUTPUT.fullmatch(source.model_id) for source in version.spec.sources):
        return shape
    return msgspec.structs.replace(shape, tied=False, parameters=shape.parameters + shape.vocab * shape.hidden)
