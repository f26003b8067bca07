"""The type of an option that names one replica of a model: ``1``, ``rep1``, or ``UID-rep1`` as the server prints it."""

from __future__ import annotations

import re

import click

_NAME = re.compile(r"(?:(?:(?P<uid>.+)-)?rep)?(?P<number>[0-9]{1,9})", re.ASCII)


class ReplicaName(click.ParamType[tuple[str | None, int]]):
    """A replica of a model: the model's uid if it is named, and the number."""

    name = "replica"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, int]:
        match = _NAME.fullmatch(value.strip())
        if match is None:
            self.fail(
                f"{value!r} is not the name of a replica. Use its number, or its name such as rep0 or UID-rep0.",
                param,
                ctx,
            )
        return match["uid"], int(match["number"])


def replica_name(uid: str, of_uid: str | None, number: int) -> str:
    """The `replica_model_uid` of the replica `number` of the model `uid`.

    Args:
        of_uid: the uid in the name of the replica.

    Raises:
        click.UsageError: the replica is that of another model.
    """
    if of_uid not in (None, uid):
        raise click.UsageError(f"{of_uid}-rep{number} is not a replica of {uid}.")
    return f"{uid}-rep{number}"
