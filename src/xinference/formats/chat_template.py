"""Checks whether a chat template writes tools and their calls, by its text."""

from __future__ import annotations

#: Marks of templates that only list the tools, whose calls llama.cpp reads by a parser of its own.
_LISTED = ("<|tool_list_start|>", "List of tools: [")


def writes_tool_calls(template: str) -> bool:
    """Whether the template writes the tools and the calls of earlier turns, from which llama.cpp learns their form.

    llama.cpp tells the model nothing of tools, and forces and reads no call, where a template does not.
    """
    return "tools" in template and ("tool_calls" in template or any(mark in template for mark in _LISTED))
