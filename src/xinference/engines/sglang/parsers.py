"""SGLang's parsers of tool calls and reasoning, from its own lists."""

from __future__ import annotations

from xinference.engines.options.parsers import Parsers
from xinference.engines.sglang.packings import VERSION

#: All tool parsers of the version.
TOOL_PARSERS = frozenset(
    {
        "apertus2509", "beam", "cohere_command4", "deepseekv3", "deepseekv31", "deepseekv32", "deepseekv4",
        "deepseekv41", "dots", "gemma4", "gigachat3", "gigachat35", "glm", "glm45", "glm47", "gpt-oss", "hermes",
        "hunyuan", "inkling", "interns1", "iquest_q1", "k2_horizon", "kimi_k2", "kimi_k3", "lfm2", "ling3", "llama3",
        "mimo", "minicpm5", "minimax-m2", "minimax-m3", "mistral", "muse", "nanbeige", "poolside_v1", "pythonic",
        "qwen", "qwen25", "qwen3_coder", "response_template", "spark25", "step3", "step3p5", "trinity",
    }
)  # fmt: skip
#: All reasoning parsers of the version.
REASONING_PARSERS = frozenset(
    {
        "apertus2509", "beam", "cohere_command4", "deepseek-r1", "deepseek-v3", "deepseek-v4", "deepseek-v41", "dots",
        "gemma4", "gigachat35", "glm45", "gpt-oss", "granite_thinking_parser", "hunyuan", "inkling", "interns1",
        "iquest_q1", "k2_horizon", "kimi", "kimi_k2", "kimi_k3", "ling3", "mimo", "minimax", "minimax-append-think",
        "minimax-m3", "mistral", "muse", "nanbeige", "nemotron_3", "poolside_v1", "qwen3", "qwen3-thinking",
        "response_template", "step3", "step3p5",
    }
)  # fmt: skip
PARSERS = Parsers(
    engine=f"SGLang {VERSION}",
    known_tools=TOOL_PARSERS,
    known_reasoning=REASONING_PARSERS,
    aliases={
        "qwen": "qwen25",
        "qwen_xml": "qwen3_coder",
        "qwen3_xml": "qwen3_coder",
        "llama3_json": "llama3",
        "deepseek-v3": "deepseekv3",
        "deepseek_v3": "deepseekv3",
        "deepseek-v3.1": "deepseekv31",
        "deepseek_v31": "deepseekv31",
        "deepseek-r1": "deepseekv3",
        "deepseek-v3.2": "deepseekv32",
        "deepseek_v32": "deepseekv32",
        "deepseek-v4": "deepseekv4",
        "deepseek-v4.1": "deepseekv41",
        "gemma": "gemma4",
        "kimi-k3": "kimi_k3",
        "minimax_m3": "minimax-m3",
        "minimax": "minimax-m2",
        "minimax_m2": "minimax-m2",
        "openai": "gpt-oss",
    },
    schema_parser="hermes",
    reasoning={
        "qwen3": "qwen3",
        "qwen3-thinking": "qwen3-thinking",
        "smollm3": "qwen3",
        "deepseek-r1": "deepseek-r1",
        "gpt-oss": "gpt-oss",
    },
    reasoning_of_form={
        "glm45": "glm45",
        "glm47": "glm45",
        "deepseek-v3.1": "deepseek-v3",
        "deepseek-v3.2": "deepseek-v3",
        "deepseek-v4": "deepseek-v4",
        "deepseek-v4.1": "deepseek-v41",
        "kimi-k3": "kimi_k3",
        "ling3": "ling3",
        "minimax": "minimax",
        "minimax_m3": "minimax-m3",
        "gemma": "gemma4",
        "openai": "gpt-oss",
    },
    reasoning_of_tags={("<mm:think>", "</mm:think>"): "minimax-m3"},
    tagged="deepseek-r1",
    tagged_hybrid="qwen3",
)
