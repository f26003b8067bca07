"""The answers of the routes about models and cached weights, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, RootModel

from xinference.api.schemas import Answer


class EngineEntry(Answer):
    """The quantizations of one spec that an engine runs."""

    model_name: str
    model_format: str
    model_size_in_billions: int | str
    quantizations: list[str]


class EngineRow(Answer):
    """Whether an engine runs one version on this machine."""

    model_format: str
    model_size_in_billions: int | str
    quantization: str
    engine: str
    ok: bool
    reason: str | None


class Engines(RootModel[dict[str, list[EngineEntry] | str]]):
    """Engine -> the versions of the model that it runs on this machine, or the reason why it runs none."""


class Version(Answer):
    """One version of a model, and whether its weights are cached."""

    model_version: str
    model_file_location: str | None
    cache_status: bool
    quantization: str
    model_format: str
    model_size_in_billions: int | str


class Abilities(Answer):
    """The names of families by ability."""

    chat: list[str]
    generate: list[str]
    tools: list[str]


class EngineModels(Answer):
    """The names of the families that one engine supports, by ability."""

    chat: list[str]
    generate: list[str]


class PromptStyle(Answer):
    """The chat template and the stop tokens of a family."""

    chat_template: str
    stop: list[str]
    stop_token_ids: list[int]


class CachedEntry(Answer):
    """One cached version from one hub."""

    model_name: str
    model_type: str
    model_size_in_billions: int | str
    model_format: str
    quantization: str
    model_version: str
    path: str
    real_path: str
    actor_ip_address: str
    hub: str | None
    model_id: str | None
    size_bytes: int
    complete: bool


class CachedList(Answer):
    """The cached versions."""

    list: list[CachedEntry]


class CachedFile(Answer):
    """One file of a version; 0 bytes if another version uses the same data."""

    path: str
    size_bytes: int


class CachedFiles(Answer):
    """The files that a removal would delete."""

    model_version: str
    worker_ip: str | None
    paths: list[str]
    files: list[CachedFile]
    shared_with: list[str]
    used_by: list[str]


class Removed(Answer):
    """The result of a removal."""

    result: bool
    freed_bytes: int


class ModelVersionAnswer(Answer):
    """The version that is being downloaded."""

    model_version: str


class Download(Answer):
    """A download of weights; `kind` is ``cache``, or ``launch`` for that of a launch."""

    kind: str
    cache_uid: str | None
    model_name: str | None
    model_uid: str | None
    progress: float
    stage: str
    download_files: list[dict[str, Any]]
    resumable: bool
    error: str | None


class Downloads(Answer):
    """The downloads that are not complete."""

    list: list[Download]


class EngineOptions(Answer):
    """The options of an engine by name."""

    engine: str
    options: dict[str, str] = Field(description="The type of each option")


class Environment(Answer):
    """An installed environment of an engine."""

    model_engine: str
    path: str
    real_path: str
    python_version: str
    size_bytes: int


class Environments(Answer):
    """The installed environments."""

    list: list[Environment]


class Package(Answer):
    """A package of an environment."""

    name: str
    version: str


class Packages(Answer):
    """The packages of an environment."""

    model_engine: str
    python_version: str
    packages: list[Package]


class CatalogEntry(Answer):
    """One catalog of the home; `state` is ``in use`` or ``stored``."""

    state: str
    version: str
    source: str
    sha256: str | None = None
    created: int | None = None
    families: int | None = None
    selected: bool = False


class Catalogs(Answer):
    """The catalog in use, and all catalogs, newest first; `problem`: the reason why the last update is not in use."""

    version: str
    families: int
    source: str | None
    problem: dict[str, Any] | None
    catalogs: list[CatalogEntry]


class CatalogChange(Answer):
    """The families that differ between two catalogs; `changed` has the fields of each."""

    version: str
    added: list[str]
    removed: list[str]
    changed: dict[str, list[str]]
    updated: bool | None = None


class Fit(Answer):
    """Whether one version fits on one engine; bytes and tokens of one replica."""

    model_name: str
    model_type: str
    model_size_in_billions: int | str
    model_format: str
    quantization: str
    engine: str | None
    fits: Literal["now", "after_unloading", "never"]
    unload: list[str]
    memory_bytes: int | None
    weights_bytes: int | None
    context_length: int | None
    slots: int | None
    devices: list[list[int]]
    memory_source: str | None
    reason: str | None
    code: str | None
