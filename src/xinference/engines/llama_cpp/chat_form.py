"""The forms of tool calls and reasoning that llama.cpp can parse: it detects them in the chat template. Pure."""

from __future__ import annotations

from xinference.catalog.models import ModelFamily
from xinference.formats.chat_template import writes_tool_calls
from xinference.launch.plan import LaunchPlan, SizedPlan

WAY_OUT = "Launch it with a --chat_template that writes them, or launch another model with the ability tools."

#: Forms of tool calls of models whose chat template writes no earlier thoughts, so that llama.cpp finds no tags.
_UNREAD_THOUGHTS = frozenset({"granite"})


def tool_refusal(plan: LaunchPlan) -> str | None:
    """Why llama.cpp can't call tools with this model, with the way out; None: it can, or that is not known yet.

    It forces no call either: without a form, the answer is free text.
    """
    family = plan.version.family
    template = plan.options.get("chat_template") or family.chat_template
    if template is not None:
        origin, writes = "of the launch", writes_tool_calls(str(template))
    elif isinstance(plan, SizedPlan) and plan.writes_calls is not None:
        origin, writes = "in the weights", plan.writes_calls
    else:  # the weights are not here yet
        origin, writes = "in the weights", "tools" in family.model_ability or family.tool_parser is not None
    if writes:
        return None
    return (
        "llama.cpp finds the form of tool calls in the chat template, and the one "
        f"{origin} of {family.model_name} writes no tools and calls. {WAY_OUT}"
    )


def reasons(family: ModelFamily) -> tuple[str, ...]:
    """The plan's reasons for what is not parsed."""
    if "reasoning" in family.model_ability and family.tool_parser in _UNREAD_THOUGHTS:
        return ("reasoning: llama.cpp finds no tags of it in the chat template, so it stays in the answer",)
    return ()
