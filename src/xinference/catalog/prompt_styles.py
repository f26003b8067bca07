"""The prompt styles of version 1 registrations as Jinja chat templates.

A style is a name and some texts; the formats are those of FastChat's conversation templates (lm-sys/FastChat,
`conversation.py`), from which the names come.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_SYSTEM_BLOCK = re.compile(r"<<SYS>>\n(.*?)\n<</SYS>>", re.DOTALL)


@dataclass(frozen=True)
class PromptStyle:
    """One style with its texts."""

    style_name: str
    system_prompt: str = ""
    roles: tuple[str, ...] = ()
    """The user's and the assistant's."""
    intra_message_sep: str = ""
    inter_message_sep: str = ""

    @property
    def user(self) -> str:
        return self.roles[0] if self.roles else ""

    @property
    def assistant(self) -> str:
        return self.roles[1] if len(self.roles) > 1 else ""


def template_of(style: PromptStyle) -> str | None:
    """The chat template of a style; None: the style is unknown."""
    write = STYLES.get(style.style_name.upper())
    return None if write is None else write(style)


def style_of_family(name: str) -> PromptStyle | None:
    """The style of a known model family, by the longest matching prefix of its name; None: unknown."""
    lowered = name.lower()
    matching = [beginning for beginning in FAMILIES if lowered.startswith(beginning)]
    return FAMILIES[max(matching, key=len)] if matching else None


# -- the styles ---------------------------------------------------------------------------------------------


def _rows(style: PromptStyle, *, between: str, alternate: bool, after_system: str, last: str | None = None) -> str:
    """Role, `between`, content and separator for each message.

    `after_system` follows the style's own system prompt; a request's system message is followed by the separator.
    """
    seps = (style.intra_message_sep, style.inter_message_sep if alternate else style.intra_message_sep)
    default = _text(style.system_prompt + after_system)
    closing = _text(style.assistant + (between.rstrip(" ") if last is None else last))
    return (
        f"{_with_system(default, style.intra_message_sep)}{{{{ system }}}}"
        "{% for message in turns %}"
        f"{{% if message['role'] == 'assistant' %}}"
        f"{{{{ {_text(style.assistant + between)} + message['content'] + {_text(seps[1])} }}}}"
        f"{{% elif message['role'] == 'user' %}}"
        f"{{{{ {_text(style.user + between)} + message['content'] + {_text(seps[0])} }}}}"
        f"{{% else %}}"
        f"{{{{ message['role'] + {_text(between)} + message['content'] + {_text(seps[0])} }}}}"
        "{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {closing} }}}}{{% endif %}}"
    )


def _add_colon_single(style: PromptStyle) -> str:
    return _rows(style, between=": ", alternate=False, after_system=style.intra_message_sep)


def _add_colon_two(style: PromptStyle) -> str:
    return _rows(style, between=": ", alternate=True, after_system=style.intra_message_sep)


def _no_colon_single(style: PromptStyle) -> str:
    return _rows(style, between="", alternate=False, after_system="")


def _no_colon_two(style: PromptStyle) -> str:
    return _rows(style, between="", alternate=True, after_system="")


def _new_line_single(style: PromptStyle) -> str:
    after = style.intra_message_sep if style.system_prompt else ""
    return _rows(style, between="\n", alternate=False, after_system=after, last="\n")


def _alpaca(style: PromptStyle) -> str:
    return _rows(
        PromptStyle(
            style.style_name,
            style.system_prompt,
            style.roles or ("### Instruction", "### Response"),
            style.intra_message_sep or "\n\n",
            style.inter_message_sep or style.intra_message_sep or "\n\n",
        ),
        between=":\n",
        alternate=True,
        after_system=(style.intra_message_sep or "\n\n") if style.system_prompt else "",
        last=":\n",
    )


def _instruction(style: PromptStyle) -> str:
    """The whole prompt is the system prompt with the question in place of ``{0}``."""
    before, _, after = style.system_prompt.partition("{0}" if "{0}" in style.system_prompt else "{}")
    return f"{{{{ {_text(before)} + messages[-1]['content'] + {_text(after)} }}}}"


def _llama2(style: PromptStyle) -> str:
    """Llama 2's own format: one BOS for each turn, the system message inside the first question."""
    block = _SYSTEM_BLOCK.search(style.system_prompt)
    system = block[1] if block else "" if "[INST]" in style.system_prompt else style.system_prompt
    user, assistant = style.user or "[INST]", style.assistant or "[/INST]"
    return (
        f"{_with_system(_text(system.strip()))}{{% for message in turns %}}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}"
        f"{{{{ bos_token + {_text(user + ' ')} }}}}"
        "{% if loop.first and system %}{{ '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' }}{% endif %}"
        f"{{{{ message['content'] + {_text(' ' + assistant)} }}}}"
        "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )


def _mixtral(style: PromptStyle) -> str:
    """``<s> [INST] question [/INST]answer </s>``."""
    return (
        f"{_with_system(_text(''))}{{% for message in turns %}}"
        "{% if message['role'] == 'user' %}"
        "{{ bos_token + ' [INST] ' + (system + '\\n\\n' if loop.first and system else '') + message['content']"
        " + ' [/INST]' }}"
        "{% else %}{{ message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )


def _chatml(style: PromptStyle) -> str:
    """``<|im_start|>role\\ncontent<|im_end|>\\n``."""
    user, assistant = style.user or "<|im_start|>user", style.assistant or "<|im_start|>assistant"
    end = style.intra_message_sep or "<|im_end|>"
    return _with_tags(
        style, system=user.replace("user", "system"), user=user, assistant=assistant, gap="\n", end=f"{end}\n"
    )


def _llama3(style: PromptStyle) -> str:
    """``<|start_header_id|>role<|end_header_id|>\\n\\ncontent<|eot_id|>``."""
    gap, end = style.intra_message_sep or "\n\n", style.inter_message_sep or "<|eot_id|>"
    names = ("system", style.user or "user", style.assistant or "assistant")
    system, user, assistant = (f"<|start_header_id|>{name}<|end_header_id|>" for name in names)
    return "{{ bos_token }}" + _with_tags(style, system=system, user=user, assistant=assistant, gap=gap, end=end)


def _phi3(style: PromptStyle) -> str:
    """``<|user|>\\ncontent<|end|>\\n``."""
    names = ("system", style.user or "user", style.assistant or "assistant")
    system, user, assistant = (name if name.startswith("<|") else f"<|{name}|>" for name in names)
    gap, end = style.intra_message_sep or "\n", style.inter_message_sep or "<|end|>\n"
    return _with_tags(style, system=system, user=user, assistant=assistant, gap=gap, end=end)


def _gemma(style: PromptStyle) -> str:
    """``<start_of_turn>role\\ncontent<end_of_turn>\\n``; no system role: the system message precedes the question."""
    return (
        f"{_with_system(_text(style.system_prompt))}{{{{ bos_token }}}}{{% for message in turns %}}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n'"
        " + (system + '\\n\\n' if loop.first and system else '') + message['content'] + '<end_of_turn>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    )


def _with_tags(style: PromptStyle, *, system: str, user: str, assistant: str, gap: str, end: str) -> str:
    """Each role has a tag before its message and an end tag after it, also the system role."""
    default = style.system_prompt.removeprefix(system).removesuffix(end.strip() or end).strip()
    return (
        f"{_with_system(_text(default))}"
        f"{{% if system %}}{{{{ {_text(system + gap)} + system + {_text(end)} }}}}{{% endif %}}"
        "{% for message in turns %}"
        "{% if message['role'] == 'assistant' %}"
        f"{{{{ {_text(assistant + gap)} + message['content'] + {_text(end)} }}}}"
        "{% else %}"
        f"{{{{ {_text(user + gap)} + message['content'] + {_text(end)} }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {_text(assistant + gap)} }}}}{{% endif %}}"
    )


def _with_system(default: str, after_given: str = "") -> str:
    given = f"messages[0]['content'] + {_text(after_given)}" if after_given else "messages[0]['content']"
    return (
        f"{{% if messages and messages[0]['role'] == 'system' %}}{{% set system = {given} %}}"
        "{% set turns = messages[1:] %}"
        f"{{% else %}}{{% set system = {default} %}}{{% set turns = messages %}}{{% endif %}}"
    )


def _text(value: str) -> str:
    """A Jinja string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


STYLES: dict[str, Callable[[PromptStyle], str]] = {
    "ADD_COLON_SINGLE": _add_colon_single,
    "ADD_COLON_TWO": _add_colon_two,
    "NO_COLON_SINGLE": _no_colon_single,
    "NO_COLON_TWO": _no_colon_two,
    "ADD_NEW_LINE_SINGLE": _new_line_single,
    "ALPACA": _alpaca,
    "INSTRUCTION": _instruction,
    "LLAMA2": _llama2,
    "LLAMA3": _llama3,
    "MIXTRAL_V01": _mixtral,
    "CHATML": _chatml,
    "QWEN": _chatml,
    "PHI3": _phi3,
    "GEMMA": _gemma,
}
_CHATML = PromptStyle("CHATML")
#: Families that version 1 knew by name -> their style.
FAMILIES = {
    "llama-2": PromptStyle("LLAMA2"),
    "code-llama": PromptStyle("LLAMA2"),
    "llama-3": PromptStyle("LLAMA3"),
    "mistral": PromptStyle("MIXTRAL_V01"),
    "mixtral": PromptStyle("MIXTRAL_V01"),
    "qwen": _CHATML,
    "yi-": _CHATML,
    "internlm2": _CHATML,
    "openhermes": _CHATML,
    "gemma": PromptStyle("GEMMA"),
    "phi-3": PromptStyle("PHI3"),
    "vicuna": PromptStyle(
        "ADD_COLON_TWO", roles=("USER", "ASSISTANT"), intra_message_sep=" ", inter_message_sep="</s>"
    ),
    "wizardlm": PromptStyle(
        "ADD_COLON_TWO", roles=("USER", "ASSISTANT"), intra_message_sep=" ", inter_message_sep="</s>"
    ),
    "deepseek-coder": PromptStyle("ALPACA", intra_message_sep="\n", inter_message_sep="\n<|EOT|>\n"),
}
