"""A model of each generation as users of Xinference have it."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]

VERSION_1: Json = {
    "version": 1,
    "context_length": 2048,
    "model_name": "my-llama",
    "model_lang": ["en"],
    "model_ability": ["chat"],
    "model_family": "other",
    "model_specs": [
        {
            "model_format": "ggufv2",
            "model_size_in_billions": 7,
            "quantizations": ["q4_0", "q8_0"],
            "model_id": "me/My-Llama-GGUF",
            "model_hub": "huggingface",
            "model_uri": None,
            "model_revision": "0123abcd",
            "model_file_name_template": "my-llama.{quantization}.gguf",
            "model_file_name_split_template": "my-llama.{quantization}-{part}.gguf",
            "quantization_parts": {"q8_0": ["00001-of-00002", "00002-of-00002"]},
        },
        {
            "model_format": "pytorch",
            "model_size_in_billions": "1_8",
            "quantizations": ["4-bit", "8-bit", "none"],
            "model_id": "me/My-Llama",
            "model_hub": "modelscope",
        },
    ],
    "prompt_style": {
        "style_name": "ADD_COLON_SINGLE",
        "system_prompt": "A chat.",
        "roles": ["USER", "ASSISTANT"],
        "intra_message_sep": "\n",
        "stop": ["USER:"],
        "stop_token_ids": [2],
    },
}
VERSION_2: Json = {
    "version": 2,
    "context_length": 32768,
    "model_name": "my-qwen",
    "model_lang": ["en", "zh"],
    "model_ability": ["chat", "tools", "reasoning"],
    "model_description": "Mine.",
    "model_family": "other",
    "model_specs": [
        {
            "model_format": "pytorch",
            "model_size_in_billions": "0_5",
            "activated_size_in_billions": None,
            "quantization": "none",
            "model_hub": "huggingface",
            "model_id": "me/qwen",
            "model_uri": None,
            "model_revision": None,
        },
        {
            "model_format": "gptq",
            "model_size_in_billions": "0_5",
            "model_src": {
                "huggingface": {"quantizations": ["Int4", "Int8"], "model_id": "me/qwen-GPTQ-{quantization}"},
                "modelscope": {"quantizations": ["Int4"], "model_id": "us/qwen-GPTQ-{quantization}"},
            },
        },
        {
            "model_format": "ggufv2",
            "model_size_in_billions": "0_5",
            "quantization": "Q8_0",
            "model_uri": "file:///models/qwen.Q8_0.gguf",
            "model_file_name_template": "qwen.{quantization}.gguf",
        },
    ],
    "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "stop": ["<|im_end|>"],
    "stop_token_ids": [151645],
    "reasoning_start_tag": "<think>",
    "reasoning_end_tag": "</think>",
    "tool_parser": "qwen",
    "architectures": ["Qwen2ForCausalLM"],
    "cache_config": None,
    "virtualenv": {"packages": [], "inherit_pip_config": True},
    "is_builtin": False,
}
EMBEDDING_1: Json = {
    "model_name": "my-bge",
    "dimensions": 1024,
    "max_tokens": 512,
    "language": ["zh"],
    "model_id": "BAAI/bge-large-zh",
    "model_uri": "file:///models/bge",
}
EMBEDDING_2: Json = {
    "version": 2,
    "model_name": "my-bge-2",
    "dimensions": 1024,
    "max_tokens": 512,
    "language": ["zh"],
    "model_specs": [
        {
            "model_format": "ggufv2",
            "model_hub": "huggingface",
            "model_id": "me/bge",
            "quantization": "F16",
            "model_file_name_template": "bge.{quantization}.gguf",
        },
        {"model_format": "pytorch", "model_hub": "huggingface", "model_id": "me/bge", "quantization": "none"},
    ],
}
RERANK: Json = {
    "version": 2,
    "model_name": "my-reranker",
    "type": "unknown",
    "language": ["en", "zh"],
    "max_tokens": 512,
    "model_specs": [
        {"model_format": "pytorch", "model_hub": "huggingface", "model_id": "me/reranker", "quantization": "none"}
    ],
}


def changed(document: Json, changes: Json) -> Json:
    """The document with values replaced at paths such as ``model_specs/0/quantizations``; ``...`` removes."""
    document = copy.deepcopy(document)
    for path, value in changes.items():
        *way, last = path.split("/")
        node: Any = document
        for step in way:
            node = node[int(step) if isinstance(node, list) else step]
        key = int(last) if isinstance(node, list) else last
        if value is ...:
            del node[key]
        else:
            node[key] = value
    return document
