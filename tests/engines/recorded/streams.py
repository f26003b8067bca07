"""Answers with one tool call, and with a reasoning, in the form of each parser that a built-in family is mapped to.

Written by hand in the forms that the models' chat templates and vLLM's parsers describe.
"""

from __future__ import annotations

from typing import Any

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
#: The call of every text below.
CALL = {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}
_JSON = '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}'
_PARAMETERS = '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}'
_ARGUMENTS = '{"city": "Rome", "days": 2}'
_FUNCTION = (
    "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>"
)
_GLM = "<arg_key>city</arg_key>{0}<arg_value>Rome</arg_value>{0}<arg_key>days</arg_key>{0}<arg_value>2</arg_value>"


def _dsml(calls: str, invoke: str = "invoke", parameter: str = "parameter") -> str:
    mark = "｜DSML｜"
    return (
        f'<{mark}{calls}>\n<{mark}{invoke} name="get_weather">\n'
        f'<{mark}{parameter} name="city" string="true">Rome</{mark}{parameter}>\n'
        f'<{mark}{parameter} name="days" string="false">2</{mark}{parameter}>\n'
        f"</{mark}{invoke}>\n</{mark}{calls}>"
    )


def _minimax_m3() -> str:
    mark = "]<]minimax[>["
    return (
        f'{mark}<tool_call>\n{mark}<invoke name="get_weather">\n{mark}<city>Rome{mark}</city>\n'
        f"{mark}<days>2{mark}</days>\n{mark}</invoke>\n{mark}</tool_call>"
    )


def _kimi_k3() -> str:
    argument = '<|open|>argument key="{}" type="{}"<|sep|>{}<|close|>argument<|sep|>'
    return (
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>'
        + argument.format("city", "string", "Rome")
        + argument.format("days", "number", "2")
        + "<|close|>call<|sep|><|close|>tools<|sep|>"
    )


#: vLLM's tool parser -> an answer that is one call.
TOOL_CALLS: dict[str, str] = {
    "hermes": f"<tool_call>\n{_JSON}\n</tool_call>",
    "qwen3_xml": f"<tool_call>\n{_FUNCTION}\n</tool_call>",
    "qwen3_coder": f"<tool_call>\n{_FUNCTION}\n</tool_call>",
    "llama3_json": _PARAMETERS,
    "mistral": f"[TOOL_CALLS][{_JSON}]",
    "granite": f"<|tool_call|>[{_JSON}]",
    "phi4_mini_json": f"functools[{_JSON}]",
    "internlm": f"<|action_start|><|plugin|>\n{_PARAMETERS}<|action_end|>",
    "seed_oss": (
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Rome</parameter>\n"
        "<parameter=days>2</parameter>\n</function>\n</seed:tool_call>"
    ),
    "glm45": f"<tool_call>get_weather\n{_GLM.format(chr(10))}\n</tool_call>",
    "glm47": f"<tool_call>get_weather{_GLM.format('')}</tool_call>",
    "ling3": f"<tool_call>get_weather{_GLM.format('')}</tool_call>",
    "deepseek_v3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{_ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v31": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{_ARGUMENTS}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v32": _dsml("function_calls"),
    "deepseek_v4": _dsml("tool_calls"),
    "deepseek_v41": _dsml(" calls", " invoke", " parameter"),
    "gemma4": '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:2}<tool_call|>',
    "minimax_m2": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>'
    ),
    "minimax_m3": _minimax_m3(),
    "minicpm5": ('<function name="get_weather"><param name="city">Rome</param><param name="days">2</param></function>'),
    "kimi_k3": _kimi_k3(),
}
#: Tool parsers of vLLM that are only a mark for the server: it parses such an answer by its tokens.
BY_TOKENS = frozenset({"openai"})
THOUGHT, ANSWER = "The user asks for the weather.", "It is sunny."
#: vLLM's reasoning parser -> an answer whose reasoning is `THOUGHT` and whose text is `ANSWER`.
REASONING: dict[str, str] = {
    "deepseek_r1": f"{THOUGHT}</think>{ANSWER}",
    "deepseek_v3": f"{THOUGHT}</think>{ANSWER}",
    "deepseek_v4": f"{THOUGHT}</think>{ANSWER}",
    "deepseek_v41": f"{THOUGHT}</think>{ANSWER}",
    "qwen3": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}",
    "glm45": f"<think>{THOUGHT}</think>{ANSWER}",
    "glm47": f"<think>{THOUGHT}</think>{ANSWER}",
    "ling3": f"<think>{THOUGHT}</think>{ANSWER}",
    "minimax_m2": f"{THOUGHT}</think>{ANSWER}",
    "minimax_m3": f"<mm:think>{THOUGHT}</mm:think>{ANSWER}",
    "seed_oss": f"<seed:think>{THOUGHT}</seed:think>{ANSWER}",
    "granite": f"Here is my thought process: {THOUGHT} Here is my response: {ANSWER}",
    "gemma4": f"<|channel>thought\n{THOUGHT}<channel|>{ANSWER}",
    "kimi_k3": (
        f"<|open|>think<|sep|>{THOUGHT}<|close|>think<|sep|><|open|>response<|sep|>{ANSWER}<|close|>response<|sep|>"
    ),
}
REASONING_BY_TOKENS = frozenset({"openai_gptoss"})
#: Variables of the chat template by which hybrid models of DeepSeek think.
THINKING = {"thinking": True, "enable_thinking": True}
#: Texts that are one token of the models, in the order in which they are looked for.
SPECIAL = (
    "<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "<|tool_call|>", "<|action_start|>",
    "<|plugin|>", "<|action_end|>", "<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "｜DSML｜", "<|tool_call>", "<tool_call|>",
    '<|"|>', "<|channel|>", "<|start|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>",
    "<|channel>", "<channel|>", "<minimax:tool_call>", "</minimax:tool_call>", "]<]minimax[>[", "<mm:think>",
    "</mm:think>", "<|open|>", "<|close|>", "<|sep|>", "<|python_tag|>", "<|tool>", "<tool|>", "<|tool_response>",
)  # fmt: skip
