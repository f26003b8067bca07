"""The option ``--label NAME=VALUE``, repeatable: of a worker, and of a launch."""

from __future__ import annotations

from collections.abc import Iterable

import click


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """The labels of these options by their names.

    Raises:
        BadParameter: one has another form, or a name has two values.
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} does not have the form NAME=VALUE.", param_hint="'--label'")
        if labels.setdefault(name, value) != value:
            raise click.BadParameter(
                f"The label {name} has two values: {labels[name]!r} and {value!r}.", param_hint="'--label'"
            )
    return labels
