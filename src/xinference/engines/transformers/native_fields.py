"""The request fields that our Transformers server reads besides OpenAI's; it checks their bounds itself."""

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
