"""Whether the answer to a chat continues its last message or begins a new one, in the form of each engine.

A last message of the assistant with a text begins the answer, on every engine. `continue_final_message` and
`add_generation_prompt` say so, too, or the opposite.
"""

from __future__ import annotations

import json
from typing import Any

from xinference.engines.dialect import Body, Dialect
from xinference.error_codes import Code
from xinference.gateway.canonical_fields import unsupported
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Chat, Template

CONTINUE, NEW_ANSWER = "continue_final_message", "add_generation_prompt"


def settle_continuation(dialect: Dialect, chat: Chat | Template, given: Body, document: RequestDocument) -> None:
    """Check these fields of a chat, and set the one that the engine needs in addition.

    Args:
        given: the fields of the chat that the API does not define.

    Raises:
        Refusal: 400, there is no message to continue, or the engine cannot do what the field says.
    """
    continues, new = given.get(CONTINUE), given.get(NEW_ANSWER)
    begun = _begins_answer(chat.messages[-1])
    if continues:
        _check_continued(chat, continues, new=new, begun=begun)
        if NEW_ANSWER in dialect.native.taken:
            document.put(document.fields, NEW_ANSWER, False)
    elif begun and (continues is False or new is True):
        if dialect.always_continues:
            cause = f"{dialect.engine} continues a last message of the assistant."
            name = CONTINUE if continues is False else NEW_ANSWER
            raise unsupported(name, cause, "Add a message of the role user, or leave the field out.")
        if CONTINUE in dialect.native.taken:
            document.put(document.fields, CONTINUE, False)
    elif new is False and not begun and NEW_ANSWER not in dialect.native.taken:
        cause = f"{dialect.engine} does not read it, so that the answer would be another one."
        raise unsupported(NEW_ANSWER, cause, "Use /v1/completions for a prompt without it.")


def _check_continued(chat: Chat | Template, value: Any, *, new: Any, begun: bool) -> None:
    what = f"{CONTINUE}: {json.dumps(value)[:100]}: "
    hint = "Let the beginning of the answer be a last message of the role assistant, or leave the field out."
    if chat.messages[-1].role != "assistant":
        raise _refusal(f"{what}the last message is not one of the assistant.", hint)
    if not begun:
        raise _refusal(f"{what}the last message has no text that an answer can continue.", hint)
    if new is True:
        raise _refusal(f"{what}it contradicts {NEW_ANSWER}: true.", f"Leave {NEW_ANSWER} out.")


def _refusal(cause: str, hint: str) -> Refusal:
    return Refusal(Code.INVALID_REQUEST, cause, hint=hint, param=CONTINUE)


def _begins_answer(last: Any) -> bool:
    if last.role != "assistant" or getattr(last, "tool_calls", None):
        return False
    return bool(last.content or getattr(last, "reasoning_content", None))
