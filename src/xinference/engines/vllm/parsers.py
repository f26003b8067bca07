"""vLLM's parsers of tool calls and reasoning, from its own lists."""

from __future__ import annotations

from xinference.engines.options.parsers import Parsers
from xinference.engines.vllm.packings import VERSION

#: All tool parsers of the version.
TOOL_PARSERS = frozenset(
    {
        "apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4",
        "deepseek_v41", "dots", "ernie45", "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite",
        "granite-20b-fc", "granite4", "hermes", "hf", "hunyuan_a13b", "hy_v3", "hy_v4", "inkling", "internlm",
        "jamba", "k2_horizon", "kimi_k2", "kimi_k3", "lfm2", "ling3", "llama3_json", "llama4_json", "llama4_pythonic",
        "longcat", "mimo", "minicpm5", "minimax_m2", "minimax_m3", "mistral", "muse_glimmer", "olmo3", "openai",
        "phi4_mini_json", "plamo3", "poolside_v1", "pythonic", "qwen3_coder", "qwen3_json", "qwen3_xml", "seed_oss",
        "step3", "step3p5", "xlam",
    }
)  # fmt: skip
#: Parsers that read no stream: a streamed call would be lost.
NOT_STREAMED = frozenset({"phi4_mini_json"})
#: All reasoning parsers of the version.
REASONING_PARSERS = frozenset(
    {
        "cohere_command3", "cohere_command4", "deepseek_r1", "deepseek_v3", "deepseek_v4", "deepseek_v41", "ernie45",
        "gemma4", "glm45", "glm47", "granite", "granite_thinking_parser", "hf", "holo2", "hunyuan_a13b", "hy_v3",
        "hy_v4", "inkling", "k2_horizon", "kimi_k2", "kimi_k3", "ling3", "mimo", "minicpmv", "minimax_m2",
        "minimax_m2_append_think", "minimax_m3", "mistral", "muse_glimmer", "nemotron_v3", "olmo3", "openai_gptoss",
        "plamo3", "poolside_v1", "qwen3", "seed_oss", "step3", "step3p5",
    }
)  # fmt: skip
PARSERS = Parsers(
    engine=f"vLLM {VERSION}",
    known_tools=TOOL_PARSERS - NOT_STREAMED,
    known_reasoning=REASONING_PARSERS,
    aliases={
        "qwen": "hermes",
        "qwen25": "hermes",
        "qwen_xml": "qwen3_xml",
        "llama3": "llama3_json",
        "glm": "glm45",
        "deepseek-v3": "deepseek_v3",
        "deepseek-v3.1": "deepseek_v31",
        "deepseekv3": "deepseek_v3",
        "deepseek-r1": "deepseek_v3",
        "deepseek-v3.2": "deepseek_v32",
        "deepseek-v4": "deepseek_v4",
        "deepseek-v4.1": "deepseek_v41",
        "gemma": "gemma4",
        "kimi-k3": "kimi_k3",
        "minimax": "minimax_m2",
        "gpt-oss": "openai",
    },
    schema_parser="hermes",
    reasoning={
        "qwen3": "qwen3",
        "smollm3": "qwen3",
        "deepseek-r1": "deepseek_r1",
        "gpt-oss": "openai_gptoss",
        "granite-3.2": "granite",  # 3.3 writes other tags, which no parser reads
    },
    reasoning_of_form={
        "qwen_xml": "qwen3",
        "glm45": "glm45",
        "glm47": "glm47",
        "deepseek-v3.1": "deepseek_v3",
        "deepseek-v3.2": "deepseek_v3",
        "deepseek-v4": "deepseek_v4",
        "deepseek-v4.1": "deepseek_v41",
        "kimi-k3": "kimi_k3",
        "ling3": "ling3",
        "minimax": "minimax_m2",
        "minimax_m3": "minimax_m3",
        "gemma": "gemma4",
        "seed_oss": "seed_oss",
        "openai": "openai_gptoss",
    },
    reasoning_of_tags={("<seed:think>", "</seed:think>"): "seed_oss", ("<mm:think>", "</mm:think>"): "minimax_m3"},
    tagged="deepseek_r1",
    tagged_hybrid="qwen3",
)
