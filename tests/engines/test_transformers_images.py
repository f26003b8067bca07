"""Images on the Transformers server, as far as no torch is needed: the parts of messages, and what is launched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.engines.plans import launch_of, sized
from xinference.catalog.models import ModelFamily
from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines
from xinference.engines.transformers.server.content_parts import ImagePart, plain_messages, without_developers
from xinference.engines.transformers.server.errors import RefusedError
from xinference.launch.request import LaunchRequest

TRANSFORMERS = all_engines()["Transformers"]
URL = "data:image/png;base64,AAAA"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(link: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": link}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_a_developer_is_the_system_for_a_template_that_does_not_name_the_role() -> None:
    messages = [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]
    assert without_developers(messages, "{{ messages[0]['role'] == 'system' }}") == [
        {"role": "system", "content": "a"},
        messages[1],
    ]
    assert without_developers(messages, "{{ messages[0]['role'] == 'developer' }}") == messages


def test_images_keep_their_order_and_the_places_of_their_parts() -> None:
    messages = [user(image({"url": URL, "detail": "low"}), text("a")), user(text("b"), image(URL + "B"))]
    plain = plain_messages(messages, with_images=True)
    assert plain.images == (
        ImagePart("messages[0].content[0].image_url", URL),
        ImagePart("messages[1].content[1].image_url", URL + "B"),
    )
    assert [message["content"] for message in plain.messages] == [
        [{"type": "image"}, text("a")],
        [text("b"), {"type": "image"}],
    ]


def test_content_without_an_image_is_one_text_as_before() -> None:
    plain = plain_messages([user(text("a"), text("b")), {"role": "assistant", "content": None}], with_images=True)
    assert [message["content"] for message in plain.messages] == ["ab", ""] and plain.images == ()


@pytest.mark.parametrize(
    ("part", "with_images", "message", "param"),
    [
        (image({"url": URL}), False, "this model accepts only text.", "messages[0].content[1]"),
        ({"type": "input_audio"}, True, "this model accepts only text and images.", "messages[0].content[1]"),
        (image({}), True, "image_url.url is required.", "messages[0].content[1].image_url.url"),
        ("words", True, "this model accepts only text and images.", "messages[0].content[1]"),
    ],
)
def test_a_part_that_the_model_does_not_read_is_named(part: Any, with_images: bool, message: str, param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        plain_messages([user(text("a"), part)], with_images=with_images)
    assert str(caught.value).startswith("messages[0].content[1]") and str(caught.value).endswith(message)
    assert (caught.value.status, caught.value.error["param"]) == (400, param)


def family(*architectures: str) -> ModelFamily:
    return msgspec.structs.replace(builtin_families()["gemma-3-it"], architectures=architectures)


def test_a_processor_that_needs_torchvision_is_the_reason_of_a_refusal() -> None:
    refused = TRANSFORMERS.reads(family("Mistral3ForConditionalGeneration"))
    assert refused.reason == (
        "the processor of Mistral3ForConditionalGeneration needs torchvision, which the environment of Transformers "
        "does not have"
    )


@pytest.mark.parametrize(
    ("name", "has_vision"), [("gemma-3-it", True), ("qwen2-vl-instruct", True), ("gemma-4", False)]
)
def test_a_model_has_the_ability_only_where_the_server_reads_its_images(name: str, has_vision: bool) -> None:
    plan = sized(launch_of(request=LaunchRequest(model_name=name, model_format="pytorch"), engine="Transformers"))
    assert ("vision" in TRANSFORMERS.abilities(plan)) is has_vision
    assert "vision" in plan.version.family.model_ability
