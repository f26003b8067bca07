"""The options of the Transformers server that a launch may set; every option of its table is in one group."""

from __future__ import annotations

from xinference.engines.options.option_policy import OptionPolicy, names
from xinference.engines.options.value_rules import text

POLICY = OptionPolicy(
    engine="Transformers",
    allowed=names("""
        attn_implementation chat_template context_length default_chat_template_kwargs device lora_modules max_num_seqs
        pooling_type prompt_lookup_num_tokens quantization_config torch_dtype
    """),
    reserved=names("host port api_key model_path uid"),
    refused={},
    switches={"trust_remote_code": frozenset()},
    # Adapters are paths, as weights are.
    rules=dict.fromkeys(("chat_template", "default_chat_template_kwargs", "lora_modules"), text),
)
