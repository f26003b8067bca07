"""A family's reference page and the index of all pages, as reStructuredText. Deterministic: no clock, no host.

A page depends only on the registry entry and on a static table of the supported formats of each engine; the table is an
argument, because the registry does not import the engines.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from xinference.catalog.models import ModelFamily, ModelSpec, Source
from xinference.error_codes import Code
from xinference.errors import Problem

Supporters = Mapping[str, Callable[[ModelSpec, str], bool]]
"""Engine name -> whether it supports a spec in a quantization; static, independent of the host."""

#: Hubs in the order of their links, each with its name and a link to one model.
HUB_LINKS = {
    "huggingface": "`Hugging Face <https://huggingface.co/{id}>`__",
    "modelscope": "`ModelScope <https://modelscope.cn/models/{id}>`__",
    "package_index": "`Package Index <https://pypi.org/project/{id}/>`__",
    "local": "local folder",
}
#: Model type -> title of its part of the index, in the order of the parts.
INDEX_PARTS = {"LLM": "Language models", "embedding": "Embedding models", "rerank": "Rerank models"}
#: The engines of a spec that none supports.
NO_ENGINE = "none of these engines runs this format"
_RULE = "=" * 40


def render_page(family: ModelFamily, supporters: Supporters) -> str:
    """The page of one family: its facts, then each spec with its engines, hubs and launch line.

    The page of an embedding or rerank model begins with the fields and the command of Xinference's own pages.
    """
    blocks = [_spec_block(family, number, spec, supporters) for number, spec in enumerate(family.model_specs, 1)]
    head = _pooling_head(family) if family.model_type != "LLM" else _head(family)
    return f"{head}{''.join(blocks)}\n"


def _head(family: ModelFamily) -> str:
    return (
        f".. _{_label(family)}:\n\n"
        f"{_RULE}\n{family.model_name}\n{_RULE}\n\n"
        f"- **Context Length:** {family.context_length}\n"
        f"- **Model Name:** {family.model_name}\n"
        f"- **Languages:** {', '.join(family.model_lang)}\n"
        f"- **Abilities:** {', '.join(family.model_ability)}\n"
        f"- **Description:** {_one_line(family.model_description)}\n\n"
        f"Specifications\n{'^' * 14}\n"
    )


def _pooling_head(family: ModelFamily) -> str:
    """The head of an embedding or rerank model: the weights as trained, and a command that names no version."""
    spec = next((spec for spec in family.model_specs if spec.model_format == "pytorch"), family.model_specs[0])
    sources = _sorted_sources(spec)
    rule = "=" * len(family.model_name)
    dimensions = f"- **Dimensions:** {family.dimensions}\n" if family.dimensions else ""
    kind = f"- **Type:** {family.rerank_type}\n" if family.rerank_type else ""
    return (
        f".. _{_label(family)}:\n\n"
        f"{rule}\n{family.model_name}\n{rule}\n\n"
        f"- **Model Name:** {family.model_name}\n"
        f"- **Languages:** {', '.join(family.model_lang)}\n"
        f"- **Abilities:** {', '.join(family.model_ability)}\n"
        f"- **Description:** {_one_line(family.model_description)}\n\n"
        f"Specifications\n{'^' * 14}\n\n"
        f"{dimensions}"
        f"- **Max Tokens:** {family.context_length}\n"
        f"{kind}"
        f"- **Model ID:** {sources[0].model_id}\n"
        f"- **Model Hubs**: {', '.join(_hub_link(source) for source in sources)}\n\n"
        "Execute the following command to launch the model::\n\n"
        f"   xinference launch --model-name {family.model_name} --model-type {family.model_type}\n"
    )


def render_index(families: Iterable[ModelFamily]) -> str:
    """The page that lists all families, a table for each model type, sorted by name, case-insensitive."""
    known = sorted(families, key=lambda family: (family.model_name.lower(), family.model_name))
    lines = [".. _models_index:", "", _RULE, "Built-in models", _RULE, ""]
    for model_type, title in INDEX_PARTS.items():
        of_type = [family for family in known if family.model_type == model_type]
        if of_type:
            lines += [title, "^" * len(title), "", ".. list-table::", "   :widths: 25 20 15 40", "   :header-rows: 1"]
            lines += ["", "   * - Model", "     - Abilities", "     - Context length", "     - Description"]
            lines += [line for family in of_type for line in _index_row(family)]
            lines.append("")
    lines += [".. toctree::", "   :hidden:", "", *(f"   {_stem(family)}" for family in known)]
    return "\n".join(lines) + "\n"


def render_type_index(model_type: str, families: Iterable[ModelFamily]) -> str:
    """The page that lists the families of one type, in the form of Xinference's own."""
    known = sorted(families, key=lambda family: (family.model_name.lower(), family.model_name))
    title = INDEX_PARTS[model_type].replace(" models", " Models")
    rule, noun = "=" * len(title), INDEX_PARTS[model_type][0].lower() + INDEX_PARTS[model_type][1:]
    lines = [f".. _models_{model_type.lower()}_index:", "", rule, title, rule, ""]
    lines += [f"The following is a list of built-in {noun} in Xinference:", "", ".. toctree::", "   :maxdepth: 1", ""]
    return "\n".join([*lines, *(f"   {_stem(family)}" for family in known)]) + "\n"


def write_docs(
    families: Iterable[ModelFamily], supporters: Callable[[ModelFamily], Supporters], out: Path
) -> list[Path]:
    """Write every family's page and the indexes into `out`, each file completely or not at all.

    Args:
        supporters: the engines that serve a family's model type, as `render_page` takes them.

    Returns:
        The files written, in the order of their names.

    Raises:
        Problem: 400 ``cannot_write``, if the folder or a file in it cannot be written.
    """
    families = list(families)
    pages = {f"{_stem(family)}.rst": render_page(family, supporters(family)) for family in families}
    pages["index.rst"] = render_index(families)
    for model_type in INDEX_PARTS:
        of_type = [family for family in families if family.model_type == model_type]
        if of_type:
            pages[f"{model_type.lower()}-index.rst"] = render_type_index(model_type, of_type)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_replace(out / name, text) for name, text in sorted(pages.items())]
    except OSError as error:
        raise Problem(
            Code.OUTPUT_NOT_WRITABLE,
            f"The pages cannot be written to {out}: {error.strerror}.",
            hint="Choose another folder.",
        ) from error


def _spec_block(family: ModelFamily, number: int, spec: ModelSpec, supporters: Supporters) -> str:
    size = spec.model_size_in_billions
    sources = _sorted_sources(spec)
    model_type = "" if family.model_type == "LLM" else f" --model-type {family.model_type}"
    title, fact, option = (
        (
            f"{spec.model_format}, {size} Billion",
            f"- **Model Size (in billions):** {size}\n",
            f" --size-in-billions {size}",
        )
        if size
        else (spec.model_format, "", "")
    )
    return (
        f"\n\nModel Spec {number} ({title})\n{'+' * 40}\n\n"
        f"- **Model Format:** {spec.model_format}\n"
        f"{fact}"
        f"- **Quantizations:** {', '.join(spec.quantizations)}\n"
        f"- **Engines**: {_engines(spec, supporters)}\n"
        f"- **Model ID:** {sources[0].model_id}\n"
        f"- **Model Hubs**:  {', '.join(_hub_link(source) for source in sources)}\n\n"
        "Execute the following command to launch the model, remember to replace ``${quantization}`` with your\n"
        "chosen quantization method from the options listed above::\n\n"
        f"   xinference launch --model-engine ${{engine}} --model-name {family.model_name}{model_type}"
        f"{option} --model-format {spec.model_format} --quantization ${{quantization}}\n"
    )


def _sorted_sources(spec: ModelSpec) -> list[Source]:
    return sorted(spec.sources, key=lambda source: list(HUB_LINKS).index(source.hub))


def _engines(spec: ModelSpec, supporters: Supporters) -> str:
    """Engines that support any of the spec's quantizations, in descending order of code points."""
    supported = {name: [q for q in spec.quantizations if takes(spec, q)] for name, takes in supporters.items()}
    names = sorted((name for name, quantizations in supported.items() if quantizations), reverse=True)
    listed = ", ".join(names) or NO_ENGINE
    if spec.model_format != "pytorch" or "4-bit" not in spec.quantizations:
        return listed
    limited = " and ".join(name for name in names if supported[name] == ["none"])
    return f"{listed} ({limited} only available for quantization none)" if limited else listed


def _hub_link(source: Source) -> str:
    return HUB_LINKS[source.hub].format(id=source.model_id)


def _index_row(family: ModelFamily) -> list[str]:
    return [
        "",
        f"   * - :ref:`{family.model_name} <{_label(family)}>`",
        f"     - {', '.join(family.model_ability)}",
        f"     - {family.context_length}",
        f"     - {_one_line(family.model_description)}".rstrip(),
    ]


def _label(family: ModelFamily) -> str:
    kind = "llm" if family.model_type == "LLM" else "builtin"
    return f"models_{kind}_{_stem(family)}"


def _stem(family: ModelFamily) -> str:
    return family.model_name.lower()


def _one_line(text: str) -> str:
    """Replace line breaks, at which a list item would end, by spaces."""
    return " ".join(text.splitlines())


def _replace(path: Path, text: str) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    temporary = Path(file.name)
    try:
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
