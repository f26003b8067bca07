"""The models of `xinference apply` and its file: which of them the file still names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class NamedModel:
    """A model of the file."""

    name: str
    """Its `model_name`."""
    uid: str | None
    """The uid that its launch has or would get; None: not known, because its launch is refused now."""

    def is_launch(self, launch: Json) -> bool:
        """Whether this is a stored launch; if its uid is not known, each launch of the same name may be."""
        uid = launch.get("model_uid")
        return uid == self.uid if self.uid is not None else self.name in (uid, launch.get("model_name"))


def stale_uids(launches: Iterable[Json], applied_from: str, models: Sequence[NamedModel], *, others: bool) -> list[str]:
    """The uids of the models to end: the file has started them and does not name them any more.

    Args:
        launches: the stored launches of the server, with `model_uid`, `model_name` and `applied_from`.
        applied_from: the set of the file.
        models: the models of the file.
        others: also models that were started in another way.
    """
    return [
        str(launch["model_uid"])
        for launch in launches
        if (others or launch.get("applied_from") == applied_from)
        and not any(model.is_launch(launch) for model in models)
    ]
