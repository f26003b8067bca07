"""Sizes of embedding and rerank models, which the facts lack: billions of parameters as their makers state them."""

from __future__ import annotations

from collections.abc import Mapping

#: Family -> billions of parameters, in the form of the registry. A family that is not here has the size 0: not known.
KNOWN_SIZES: Mapping[str, int | str] = {
    "bce-embedding-base_v1": "0_278",
    "bce-reranker-base_v1": "0_278",
    "bge-base-en": "0_109",
    "bge-base-zh": "0_102",
    "bge-base-zh-v1.5": "0_102",
    "bge-large-en": "0_335",
    "bge-large-zh": "0_326",
    "bge-large-zh-v1.5": "0_326",
    "bge-reranker-v2-gemma": "2_51",
    "bge-reranker-v2-minicpm-layerwise": "2_72",
    "bge-small-zh": "0_024",
    "bge-small-zh-v1.5": "0_024",
    "e5-large-v2": "0_335",
    "embeddinggemma-2": "0_74",
    "gte-Qwen2": "7_61",
    "gte-base": "0_109",
    "gte-large": "0_335",
    "jina-clip-v2": "0_865",
    "jina-embeddings-v2-base-en": "0_137",
    "jina-embeddings-v2-base-zh": "0_161",
    "jina-embeddings-v2-small-en": "0_033",
    "jina-embeddings-v3": "0_572",
    "jina-embeddings-v4": "3_75",
    "jina-embeddings-v5-omni-nano": "0_986",
    "jina-embeddings-v5-omni-small": "1_7",
    "jina-embeddings-v5-text-nano": "0_239",
    "jina-embeddings-v5-text-small": "0_677",
    "jina-reranker-m0": "2_44",
    "jina-reranker-v3": "0_597",
    "jina-reranker-v3.5": "0_6",
    "m3e-base": "0_102",
    "m3e-large": "0_326",
    "m3e-small": "0_024",
    "minicpm-reranker": "2_72",
    "multilingual-e5-large": "0_56",
    "text2vec-base-chinese": "0_102",
    "text2vec-base-chinese-paraphrase": "0_118",
    "text2vec-base-multilingual": "0_118",
    "text2vec-large-chinese": "0_326",
}
