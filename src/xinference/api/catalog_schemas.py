"""What the routes of models that can be launched, and of their weights here, answer, for the OpenAPI document."""

from __future__ import annotations

from pydantic import RootModel

from xinference.api.schemas import Answer


class EngineEntry(Answer):
    """What an engine runs of one spec."""

    model_name: str
    model_format: str
    model_size_in_billions: int | str
    quantizations: list[str]


class EngineRow(Answer):
    """Whether an engine runs one version here."""

    model_format: str
    model_size_in_billions: int | str
    quantization: str
    engine: str
    ok: bool
    reason: str | None


class Engines(RootModel[dict[str, list[EngineEntry] | str]]):
    """Engine -> what it runs of the model here, or why it runs none."""


class Version(Answer):
    """One version of a model, and whether its weights are here."""

    model_version: str
    model_file_location: str | None
    cache_status: bool
    quantization: str
    model_format: str
    model_size_in_billions: int | str


class Abilities(Answer):
    """The names of families by what they can do."""

    chat: list[str]
    generate: list[str]
    tools: list[str]


class VllmModels(Answer):
    """The names of the families that vLLM takes."""

    chat: list[str]
    generate: list[str]


class PromptStyle(Answer):
    """How a family's prompts are made."""

    chat_template: str
    stop: list[str]
    stop_token_ids: list[int]


class CachedEntry(Answer):
    """One version as one hub brought it."""

    model_name: str
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
    """What is in the caches."""

    list: list[CachedEntry]


class CachedFile(Answer):
    """One file of a version; 0 bytes if another version keeps its data."""

    path: str
    size_bytes: int


class CachedFiles(Answer):
    """What a removal would delete."""

    model_version: str
    worker_ip: str | None
    paths: list[str]
    files: list[CachedFile]
    shared_with: list[str]


class Removed(Answer):
    """What a removal came to."""

    result: bool
    freed_bytes: int


class ModelVersionAnswer(Answer):
    """Which version is being fetched."""

    model_version: str
