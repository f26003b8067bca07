"""The request fields that the Transformers server reads in addition to OpenAI's; the server checks their bounds."""

from __future__ import annotations

from xinference.engines.native_fields import CountOrAll, NativeFields, Share

NATIVE = NativeFields(
    taken={
        "top_k": CountOrAll,
        "min_p": Share,
        "add_special": bool,
        "add_special_tokens": bool,
    },
)
