"""The answers of `streams` by the parser of SGLang that reads them, and those of forms that vLLM reads by tokens."""

from __future__ import annotations

from tests.engines.recorded.streams import ANSWER, REASONING, THOUGHT, TOOL_CALLS

#: SGLang's tool parser -> vLLM's parser of the same form.
_SAME_CALLS = {
    "qwen25": "hermes", "hermes": "hermes", "qwen3_coder": "qwen3_coder", "llama3": "llama3_json",
    "deepseekv3": "deepseek_v3", "deepseekv31": "deepseek_v31", "deepseekv32": "deepseek_v32",
    "deepseekv4": "deepseek_v4", "deepseekv41": "deepseek_v41", "gemma4": "gemma4", "glm45": "glm45",
    "glm47": "glm47", "ling3": "ling3", "kimi_k3": "kimi_k3", "minicpm5": "minicpm5", "minimax-m2": "minimax_m2",
    "minimax-m3": "minimax_m3", "spark25": "glm47",
}  # fmt: skip
#: SGLang's reasoning parser -> vLLM's parser of the same form.
_SAME_REASONING = {
    "deepseek-r1": "deepseek_r1", "deepseek-v3": "deepseek_v3", "deepseek-v4": "deepseek_v4",
    "deepseek-v41": "deepseek_v41", "gemma4": "gemma4", "glm45": "glm45", "kimi_k3": "kimi_k3", "ling3": "ling3",
    "minimax": "minimax_m2", "minimax-m3": "minimax_m3", "qwen3": "qwen3", "qwen3-thinking": "deepseek_r1",
}  # fmt: skip
#: SGLang's tool parser -> an answer that is one call.
SGLANG_TOOL_CALLS: dict[str, str] = {
    **{parser: TOOL_CALLS[same] for parser, same in _SAME_CALLS.items()},
    # The mark is one token, and the tokenizer writes a space after it.
    "mistral": TOOL_CALLS["mistral"].replace("[TOOL_CALLS]", "[TOOL_CALLS] "),
    "gpt-oss": (
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Rome", "days": 2}<|call|>'
    ),
}
#: SGLang's reasoning parser -> an answer whose reasoning is `THOUGHT` and whose text is `ANSWER`.
SGLANG_REASONING: dict[str, str] = {
    **{parser: REASONING[same] for parser, same in _SAME_REASONING.items()},
    "gpt-oss": (
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"
    ),
}
