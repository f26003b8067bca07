"""A chat template in each form that llama.cpp finds in a template, and the answers of `streams` under it.

The templates are written by hand, with the marks and the order of the models' own: they write the tools, earlier
thoughts and earlier calls, from which llama.cpp learns the form.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.engines.recorded.streams import ANSWER, THOUGHT, TOOL_CALLS

Around = tuple[str, str]

#: One call of a template. NAME, KEY, VALUE and EACH ... END stand for Jinja that is the same in all forms.
_HERMES = '\\n<tool_call>\\n{"name": "NAME", "arguments": ARGUMENTS}\\n</tool_call>'
_PARAMETERS = '{"name": "NAME", "parameters": ARGUMENTS}'
_MISTRAL = '{"name": "NAME", "arguments": ARGUMENTS, "id": "CALL_ID"}'
_XML = "\\n<tool_call>\\n<function=NAME>\\nEACH<parameter=KEY>\\nVALUE\\n</parameter>\\nEND</function>\\n</tool_call>"
_SEED = (
    "\\n<seed:tool_call>\\n<function=NAME>\\nEACH<parameter=KEY>VALUE</parameter>\\nEND</function>\\n</seed:tool_call>"
)
_TAGGED = "<tool_call>NAMEEACH<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>END</tool_call>"
_INVOKE = '<invoke name="NAME">\\nEACH<parameter name="KEY">VALUE</parameter>\\nEND</invoke>\\n'
_MARKED = (
    ']<]minimax[>[<invoke name="NAME">\\nEACH]<]minimax[>[<KEY>VALUE]<]minimax[>[</KEY>\\nEND]<]minimax[>[</invoke>\\n'
)
_GEMMA = "<|tool_call>call:NAME{EACHKEY:QUOTEDEND}<tool_call|>"
_FUNCTION = '<function name="NAME">EACH<param name="KEY">VALUE</param>END</function>'
_KIMI = (
    '<|open|>call tool="NAME" index="1"<|sep|>'
    'EACH<|open|>argument key="KEY" type="TYPE"<|sep|>VALUE<|close|>argument<|sep|>END<|close|>call<|sep|>'
)
_GPT_OSS = "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>ARGUMENTS<|call|>"
_JINJA = {
    "NAME": "' + call.function.name + '",
    "ARGUMENTS": "' + (call.function.arguments | tojson) + '",
    "CALL_ID": "' + call.id + '",
    "EACH": "' }}{% for key, value in call.function.arguments.items() %}{{ '",
    "END": "' }}{% endfor %}{{ '",
    "KEY": "' + key + '",
    "VALUE": "' + (value if value is string else value | tojson) + '",
    "QUOTED": (
        "' + ('<|\"|>' + value + '<|\"|>' if value is string else value | tojson) + (',' if not loop.last else '') + '"
    ),
    "TYPE": "' + ('string' if value is string else 'number') + '",
}


def _template(
    call: str,
    around: Around = ("", ""),
    thought: Around | None = None,
    opens: str = "",
    roles: tuple[str, str, str] = ("<|im_start|>", "\n", "<|im_end|>\n"),
    assistant: str = "assistant",
    head: str = "",
) -> str:
    """A template.

    Args:
        call: writes one call; `around` are the texts around all calls.
        roles: the texts around the name of a role, and after a message.
        assistant: the name of the assistant's role.
        head: Jinja before all.
    """
    for name, jinja in _JINJA.items():
        call = call.replace(name, jinja)
    before, after, last = (_quoted(part) for part in roles)
    start, end = (_quoted(part) for part in thought or ("", ""))
    name = f"('{assistant}' if m.role == 'assistant' else m.role)"
    thinks = f"{{% if m.reasoning_content %}}{{{{ '{start}' + m.reasoning_content + '{end}' }}}}{{% endif %}}"
    return (
        f"{head}{{% if tools %}}{{{{ '{before}system{after}# Tools\\n' }}}}"
        "{% for tool in tools %}{{ (tool | tojson) + '\\n' }}{% endfor %}"
        f"{{{{ '{last}' }}}}{{% endif %}}"
        f"{{% for m in messages %}}{{{{ '{before}' + {name} + '{after}' }}}}"
        f"{thinks if thought else ''}"
        "{{ m.content or '' }}"
        f"{{% if m.tool_calls %}}{{{{ '{_quoted(around[0])}' }}}}"
        f"{{% for call in m.tool_calls %}}{{{{ '{call}' }}}}{{% endfor %}}"
        f"{{{{ '{_quoted(around[1])}' }}}}{{% endif %}}{{{{ '{last}' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{before}{assistant}{after}{_quoted(opens)}' }}}}{{% endif %}}"
    )


def _quoted(text: str) -> str:
    return text.replace("\n", "\\n")


@dataclass(frozen=True)
class Form:
    """The form of one kind of models: a template in it, and answers in it."""

    own: str
    """The models' own template, by its name in llama.cpp's `models/templates`."""
    template: str
    call: str | None = None
    """An answer that is one call; None: the models call none."""
    thought: Around | None = None
    """The texts around a thought; None: the models do not think."""
    opens: str = ""
    """The beginning of a thought that the template itself writes: answers begin behind it."""
    answer: Around = ("", "")
    """The texts around an answer after a thought."""
    ends: str = ""
    """The end of prompts, if they end with a word of the answers."""

    def answers(self) -> dict[str, str]:
        """The answers by their kinds; one that begins in a thought can't be a call alone."""
        found = {}
        start, end = self.thought or ("", "")
        thought = start.removeprefix(self.opens) + THOUGHT + end
        if self.thought is not None:
            found["thought"] = f"{thought}{self.answer[0]}{ANSWER}{self.answer[1]}"
        if self.call is not None and self.thought is not None:
            found["thought and call"] = thought + self.call
        if self.call is not None and not self.opens:
            found["call"] = self.call
        return found


_LINES = ("<think>\n", "\n</think>\n\n")
_TIGHT = ("<think>", "</think>")
_CHANNEL = ("<|channel>thought\n", "<channel|>")
_SEED_TAGS = ("<seed:think>", "</seed:think>")
_M3_TAGS = ("<mm:think>", "</mm:think>")
_KIMI_TAGS = ("<|open|>think<|sep|>", "<|close|>think<|sep|>")
_ANALYSIS = ("<|channel|>analysis<|message|>", "<|end|>")
_NEXT = "<|start|>assistant"
_M3 = "]<]minimax[>[<tool_call>\n", "]<]minimax[>[</tool_call>"
_M2 = "<minimax:tool_call>\n", "</minimax:tool_call>"
_TOOLS = "<|open|>tools<|sep|>", "<|close|>tools<|sep|>"
_RESPONSE = "<|open|>response<|sep|>", "<|close|>response<|sep|>"
_KIMI_ROLES = '<|open|>message role="', '"<|sep|>', "<|close|>message<|sep|><|end_of_msg|>"
#: The call of Mistral's models has an id, which llama.cpp demands where the template writes it.
_WITH_ID = TOOL_CALLS["mistral"].replace("}}]", '}, "id": "a1B2c3D4e"}]')

#: Form of the tool calls, or the kind of models that call none -> the form.
FORMS: dict[str, Form] = {
    "qwen": Form("Qwen-Qwen3-0.6B", _template(_HERMES, thought=_LINES), TOOL_CALLS["hermes"], _LINES),
    "qwen without thoughts": Form("Qwen-Qwen2.5-7B-Instruct", _template(_HERMES), TOOL_CALLS["hermes"]),
    "qwen that always thinks": Form(
        "Qwen-QwQ-32B", _template(_HERMES, thought=_LINES, opens="<think>\n"), TOOL_CALLS["hermes"], _LINES, "<think>\n"
    ),
    "hermes": Form("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", _template(_HERMES), TOOL_CALLS["hermes"]),
    "qwen_xml": Form(
        "Qwen3.5-4B", _template(_XML, thought=_LINES, opens="<think>\n"), TOOL_CALLS["qwen3_xml"], _LINES, "<think>\n"
    ),
    "qwen3_coder": Form("Qwen3-Coder", _template(_XML), TOOL_CALLS["qwen3_coder"]),
    "llama3_json": Form("meta-llama-Llama-3.1-8B-Instruct", _template(_PARAMETERS), TOOL_CALLS["llama3_json"]),
    "mistral": Form("mistralai-Mistral-Nemo-Instruct-2407", _template(_MISTRAL, ("[TOOL_CALLS][", "]")), _WITH_ID),
    "seed_oss": Form("ByteDance-Seed-OSS", _template(_SEED, thought=_SEED_TAGS), TOOL_CALLS["seed_oss"], _SEED_TAGS),
    "glm47": Form(
        "GLM-4.7-Flash", _template(_TAGGED, thought=_TIGHT, opens="<think>"), TOOL_CALLS["glm47"], _TIGHT, "<think>"
    ),
    "spark25": Form(
        "Spark2.5", _template(_TAGGED, thought=_TIGHT, opens="<think>"), TOOL_CALLS["glm47"], _TIGHT, "<think>"
    ),
    "ling3": Form(
        "inclusionai-ling-3.0-flash",
        _template(
            _TAGGED,
            thought=_TIGHT,
            opens="<think>",
            roles=("<role>", "</role>", "<|role_end|>"),
            assistant="ASSISTANT",
            head="{# <role>ASSISTANT</role> #}",
        ),
        TOOL_CALLS["ling3"],
        _TIGHT,
        "<think>",
    ),
    "minimax": Form(
        "MiniMax-M2", _template(_INVOKE, _M2, _LINES, "<think>\n"), TOOL_CALLS["minimax_m2"], _LINES, "<think>\n"
    ),
    "minimax_m3": Form("MiniMax-M3", _template(_MARKED, _M3, _M3_TAGS), TOOL_CALLS["minimax_m3"], _M3_TAGS),
    "minicpm5": Form(
        "openbmb-MiniCPM5-1B",
        _template(_FUNCTION, thought=_LINES, opens="<think>\n", head="{# Tool usage guidelines: #}"),
        TOOL_CALLS["minicpm5"],
        _LINES,
        "<think>\n",
    ),
    "gemma": Form(
        "google-gemma-4-31B-it",
        _template(_GEMMA, thought=_CHANNEL, roles=("<|turn>", "\n", "<turn|>\n"), assistant="model"),
        TOOL_CALLS["gemma4"],
        _CHANNEL,
    ),
    "kimi-k3": Form(
        "Kimi-K3",
        _template(_KIMI, _TOOLS, _KIMI_TAGS, _KIMI_TAGS[0], _KIMI_ROLES),
        TOOL_CALLS["kimi_k3"],
        _KIMI_TAGS,
        _KIMI_TAGS[0],
        _RESPONSE,
    ),
    "openai": Form(
        "openai-gpt-oss-120b",
        _template(_GPT_OSS, thought=_ANALYSIS, roles=("<|start|>", "", "<|end|>")),
        '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome", "days": 2}',
        (_ANALYSIS[0], _ANALYSIS[1] + _NEXT),
        answer=("<|channel|>final<|message|>", ""),
        ends=_NEXT,
    ),
    "deepseek-r1": Form(
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        _template(_HERMES, thought=_LINES, opens="<think>\n"),
        thought=_LINES,
        opens="<think>\n",
    ),
}
_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
#: Templates under which llama.cpp reads no call: without tools, as Qwen 2's, SmolLM3's in GGUF files and Phi 4 mini's,
#: and with tools but without earlier calls, as Granite 3.3's and GLM 4's.
WRITES_NO_CALLS = {
    "turns": _TURNS,
    "tools in turns": "{% if tools %}{{ 'Answer with a JSON list of calls.\\n' + (tools | tojson) }}{% endif %}"
    + _TURNS,
}
