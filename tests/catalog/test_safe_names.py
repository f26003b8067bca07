"""No name of a registration or of a hub leads out of a folder."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.catalog.models import HubName
from xinference.catalog.safe_names import is_inside, is_model_id, is_quantization, is_revision


@in_one_test("name", ["../x", "/x", "a//b", "a/./b", "..", "", "a\\b", "C:x", "a\0", "a\nb"])
def test_a_name_that_leaves_its_folder_is_known(name: str) -> None:
    assert not is_inside(name)


@given(st.text(alphabet="ab./\\:", max_size=12))
def test_no_name_that_passes_leaves_its_folder(name: str) -> None:
    if is_inside(name):
        folder = Path("/folder")
        assert (folder / name).resolve().is_relative_to(folder)
        assert (folder / name).resolve() != folder


@in_one_test("text", ["..", "a..b", "a/b", "", ".a", "a\n"])
def test_a_quantization_is_a_part_of_a_file_name(text: str) -> None:
    assert not is_quantization(text)


@in_one_test("text", ["..", "a/../b", "/a", "", "a b"])
def test_a_revision_leads_to_no_other_folder(text: str) -> None:
    assert not is_revision(text)


@in_one_test("hub", ["huggingface", "modelscope", "package_index"])
def test_an_id_on_a_hub_leads_to_no_other_folder(hub: HubName) -> None:
    assert not any(is_model_id(hub, text) for text in ("a/..", "../a", "/a", "a..b", "a/b/c", "", "a b"))


def test_the_id_of_a_local_model_is_any_path() -> None:
    assert is_model_id("local", "/models/../a model") and not is_model_id("local", "/models/a\n")
