"""The request fields that the Transformers server reads in addition to OpenAI's; the server checks their bounds."""

from __future__ import annotations

from xinference.engines.native_fields import CountOrAll, NativeFields, Share, ShortText

#: Those of embeddings and reranking.
_OF_VECTORS = {
    "truncate_prompt_tokens": CountOrAll,
    "prompt_name": ShortText,
    "normalize_embeddings": bool,
    "return_sparse": bool,
}
#: Those of texts to tokenize.
_OF_TOKENS = {"add_special": bool, "add_special_tokens": bool}
NATIVE = NativeFields(
    taken={
        "top_k": CountOrAll,
        "min_p": Share,
        "continue_final_message": bool,
        **_OF_TOKENS,
        **_OF_VECTORS,
    },
    not_of_texts=frozenset({*_OF_TOKENS, *_OF_VECTORS}),
)
