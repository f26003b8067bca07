from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cases import check_each, in_one_test
from xinference.gateway.responses.request import translate
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check

PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}}
FUNCTION = {"type": "function", "name": "read", "description": None, "parameters": PARAMETERS, "strict": True}


def chat(of: Any = "hi", earlier: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """The chat for a request, which the form of requests takes."""
    body = {"model": "m", "input": of, **fields}
    check(DATA_PATHS["/v1/responses"].decoder, json.dumps(body).encode())
    return translate(body, earlier or []).chat


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(list(items), **fields)["messages"]
    return found


def refused(of: Any = "hi", **fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        chat(of, **fields)
    assert caught.value.status == 400
    return caught.value


def test_a_text_is_a_question() -> None:
    assert chat(max_output_tokens=5, temperature=0.5, top_k=3, n=1, tools=None, user="u", metadata={"a": "b"}) == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "m",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "user": "u",
    }


def test_what_a_model_said_in_one_turn_is_one_message() -> None:
    said = messages(
        {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think"}]},
        {"role": "assistant", "content": "text"},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "open", "namespace": "files", "arguments": "", "id": None},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
    )
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "files__open", "arguments": ""}},
    ]
    assert said == [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "text", "reasoning_content": "think", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]


@in_one_test(
    ("item", "wanted"),
    [
        (
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": []}],
            },
            {"role": "assistant", "content": "a"},
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "no"},
        ),
        ({"role": "developer", "content": "d"}, {"role": "system", "content": "d"}),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'a"b'},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "patch", "arguments": '{"input": "a\\"b"}'},
                    }
                ],
            },
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ),
        (
            {"type": "local_shell_call_output", "call_id": "c", "output": "done"},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ),
        (
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
            {"role": "assistant", "content": None, "reasoning_content": "t"},
        ),
    ],
)
def test_every_item_of_a_history_has_its_message(item: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert messages(item) == [wanted]


def test_a_shells_call_and_a_search_are_items_of_a_history() -> None:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    (said,) = messages(
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "a"}},
        {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": action},
    )
    function = said["tool_calls"][0]["function"]
    assert function["name"] == "local_shell" and json.loads(function["arguments"]) == action


@pytest.mark.parametrize(
    ("items", "name", "arguments", "result"),
    [
        (
            [
                {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}, "status": "completed"},
                {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a"}]},
            ],
            "shell",
            {"commands": ["ls"]},
            '[{"stdout": "a"}]',
        ),
        (
            [
                {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "create_file", "path": "a"}},
                {"type": "apply_patch_call_output", "call_id": "c", "status": "completed", "output": "done"},
            ],
            "apply_patch",
            {"type": "create_file", "path": "a"},
            "done",
        ),
        (
            [{"type": "mcp_call", "id": "c", "name": "read", "arguments": '{"a": 1}', "output": "text", "error": None}],
            "read",
            {"a": 1},
            "text",
        ),
        (
            [{"type": "code_interpreter_call", "id": "c", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]}],
            "code_interpreter",
            {"code": "1"},
            '[{"type": "logs", "logs": "1"}]',
        ),
        (
            [
                {"type": "tool_search_call", "call_id": "c", "arguments": {"query": "a"}},
                {"type": "tool_search_output", "call_id": "c", "tools": []},
            ],
            "tool_search",
            {"query": "a"},
            "[]",
        ),
    ],
)
def test_the_calls_of_other_tools_are_calls_with_their_results(
    items: list[dict[str, Any]], name: str, arguments: dict[str, Any], result: str
) -> None:
    said, answered = messages(*items)
    function = said["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == (name, arguments)
    assert answered == {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": result}


@pytest.mark.parametrize("kind", ["image_generation_call", "mcp_list_tools", "mcp_approval_request", "ghost_snapshot"])
def test_records_without_a_text_for_the_model_are_passed_over(kind: str) -> None:
    user = {"role": "user", "content": "go"}
    assert messages({"type": kind, "id": "i"}, user) == [user]
    refusal = refused([{"type": kind, "id": "i"}])
    assert refusal.param == "input" and "no message" in refusal.cause


def test_a_summary_that_only_openai_can_read_is_refused() -> None:
    item = {"type": "compaction", "id": "i", "encrypted_content": "x"}
    assert refused([item, {"role": "user", "content": "go"}]).param == "input[0].type"


@pytest.mark.parametrize("reference", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_a_reference_to_a_kept_item_is_the_item(reference: dict[str, str]) -> None:
    kept = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
    body = {"model": "m", "input": [reference, {"role": "user", "content": "go"}]}
    check(DATA_PATHS["/v1/responses"].decoder, json.dumps(body).encode())
    translation = translate(body, [], {"msg_1": kept}.get)
    assert translation.chat["messages"][0] == {"role": "assistant", "content": "a"}
    assert translation.items[0] == kept


def test_instructions_and_the_first_system_messages_are_one() -> None:
    said = messages(
        {"role": "developer", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "user", "content": "c"},
        {"role": "system", "content": "d"},
        instructions="a",
    )
    assert [(one["role"], one["content"]) for one in said] == [("system", "a\n\nb"), ("user", "c"), ("system", "d")]


def test_an_image_is_passed_as_one() -> None:
    parts = [{"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": None}]
    (said,) = messages({"role": "user", "content": parts})
    assert said["content"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]


def test_a_request_goes_on_where_an_earlier_one_ended() -> None:
    earlier = [
        {"type": "message", "role": "user", "content": "a"},
        {"type": "message", "role": "assistant", "content": "b"},
    ]
    assert [one["content"] for one in chat("c", earlier)["messages"]] == ["a", "b", "c"]


def test_the_format_of_the_text_is_enforced() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert chat(text={"format": form})["response_format"] == wanted
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(text={"format": {"type": "text"}, "verbosity": "low"})


@in_one_test("name", ["type", "schema", "json_schema"])
def test_a_format_beside_its_place_is_refused(name: str) -> None:
    refusal = refused(text={name: "json_schema"})
    assert refusal.param == f"text.{name}" and refusal.hint == "Send text.format."
    assert "response_format" not in chat(text={name: None, "verbosity": "low"})


def test_tools_are_functions() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: A"}
    tools = [
        FUNCTION,
        {"type": "custom", "name": "patch", "description": "Apply", "format": grammar},
        {"type": "namespace", "name": "files", "description": "d", "tools": [FUNCTION]},
        {"type": "local_shell"},
    ]
    read, patch, inner, shell = (tool["function"] for tool in chat(tools=tools)["tools"])
    assert read == {"name": "read", "parameters": PARAMETERS, "strict": True}
    assert patch["name"] == "patch" and patch["parameters"]["required"] == ["input"]
    assert "start: A" in patch["description"]
    assert (inner["name"], shell["name"]) == ("files__read", "local_shell")
    choice = chat(tools=tools, tool_choice={"type": "custom", "name": "patch"})["tool_choice"]
    assert choice == {"type": "function", "function": {"name": "patch"}}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "read"}]}
    assert chat(tools=tools, tool_choice=allowed)["tool_choice"]["allowed_tools"]["mode"] == "required"


@in_one_test(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [FUNCTION, {"type": "mcp", "server_label": "a"}]}, "tools[1].type"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [FUNCTION]}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "most"}}, "reasoning.effort"),
        ({"of": [{"type": "item_reference", "id": "i"}]}, "input[0].id"),
        ({"of": [{"id": "i"}]}, "input[0].id"),
        ({"of": [{"type": "computer_call", "call_id": "c"}]}, "input[0].type"),
        ({"of": [{"type": "computer_call_output", "output": {"image_url": "data:,"}}]}, "input[0].type"),
        ({"of": [{"type": "function_call_output", "call_id": "c", "output": {"a": 1}}]}, "input[0].output"),
        ({"of": [{"type": "function_call_output", "call_id": "c", "output": ["a"]}]}, "input[0].output"),
        ({"of": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
        ({"of": [{"type": "function_call", "call_id": "a"}]}, "input[0].name"),
        ({"of": [{"role": "user"}]}, "input[0].content"),
        ({"of": [{"role": "robot", "content": "a"}]}, "input[0].role"),
        ({"of": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        (
            {"of": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"of": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "input[0].content[0].type"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refusal = refused(**fields)
    assert refusal.param is not None and refusal.param.replace("[...]", "[0]") == param


@in_one_test(
    ("fields", "hint"),
    [
        ({"of": [{"type": "text", "text": "a"}]}, "Accepted types: apply_patch_call, "),
        ({"of": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "Accepted types: image_url, "),
        ({"tool_choice": {"type": "web_search"}}, "Use none, auto, required, or the types function, "),
    ],
)
def test_a_refused_type_is_answered_with_those_that_are_accepted(fields: dict[str, Any], hint: str) -> None:
    assert (refused(**fields).hint or "").startswith(hint)


@in_one_test("name", ["background", "conversation", "prompt", "truncation", "previous_response_id", "store"])
def test_null_asks_for_nothing(name: str) -> None:
    assert chat(**{name: None}) == chat()


ODD = [1, "a", [], ["a"], [1], {}, {"a": 1}, [{}], [{"type": 1}], True]


@in_one_test(
    "place",
    [
        lambda odd: {"tools": [{"type": "namespace", "name": "n", "tools": odd}]},
        lambda odd: {"tools": [{"type": "custom", "name": "n", "format": odd}]},
        lambda odd: {"tool_choice": {"type": "allowed_tools", "tools": odd}},
        lambda odd: {"tool_choice": {"type": "function", "name": odd}},
        lambda odd: {"include": odd},
        lambda odd: {"reasoning": {"effort": odd}},
        lambda odd: {"text": {"format": odd}},
        lambda odd: {"text": {"format": {"type": odd}}},
        lambda odd: {"of": [{"type": "reasoning", "summary": odd}]},
        lambda odd: {"of": [{"type": "custom_tool_call", "call_id": "c", "name": "n", "input": odd}]},
        lambda odd: {"of": [{"type": "local_shell_call", "call_id": "c", "action": odd}]},
        lambda odd: {"of": [{"type": "function_call_output", "call_id": "c", "output": odd}]},
        lambda odd: {"of": [{"type": "function_call", "call_id": "c", "name": "n", "namespace": odd}]},
        lambda odd: {"store": odd, "background": odd, "conversation": odd, "prompt": odd, "truncation": odd},
    ],
)
def test_an_odd_value_is_taken_or_refused_and_never_a_defect(place: Any) -> None:
    def is_no_defect(odd: Any) -> None:
        fields = place(odd)
        try:
            chat(**fields)
        except Refusal as refusal:
            assert refusal.status == 400

    check_each(ODD, is_no_defect)
