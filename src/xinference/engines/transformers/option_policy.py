"""Which options of our Transformers server a launch may set: every name of its table is judged here."""

from __future__ import annotations

from xinference.engines.options.option_policy import OptionPolicy, names
from xinference.engines.options.value_rules import text

POLICY = OptionPolicy(
    engine="Transformers",
    allowed=names("""
        attn_implementation chat_template context_length device lora_modules max_num_seqs quantization_config
        torch_dtype
    """),
    reserved=names("host port api_key model_path uid"),
    refused={},
    trusted={"trust_remote_code": frozenset()},
    # Adapters are named like the weights: by a path.
    rules={"chat_template": text, "lora_modules": text},
)
