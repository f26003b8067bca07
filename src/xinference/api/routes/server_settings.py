"""The settings of the running server."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from functools import cache
from typing import Any

from fastapi import APIRouter

from xinference.api import server_schemas
from xinference.api.dependencies import SettingsDep
from xinference.api.errors import ERROR_RESPONSES
from xinference.api.strict import StrictRoute
from xinference.config import ENV_PREFIX, Settings

router = APIRouter(tags=["server"], route_class=StrictRoute, responses=ERROR_RESPONSES)


@router.get("/v1/settings", response_model=list[server_schemas.Setting])
async def every(settings: SettingsDep) -> list[dict[str, Any]]:
    """List the settings of the server: value, default and meaning. They are fixed until it is started again."""
    default = Settings()
    return [
        {
            "name": each.name,
            "variable": ENV_PREFIX + each.name.upper(),
            "value": _plain(getattr(settings, each.name)),
            "default": _plain(getattr(default, each.name)),
            "is_default": getattr(settings, each.name) == getattr(default, each.name),
            "meaning": _meanings()[each.name],
        }
        for each in fields(Settings)
    ]


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else str(value)


@cache
def _meanings() -> dict[str, str]:
    """The text below each field of `Settings`."""
    (made,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(made, ast.ClassDef)
    below = zip(made.body, made.body[1:], strict=False)
    return {
        ast.unparse(field.target): " ".join(str(ast.literal_eval(text.value)).replace("``", "`").split())
        for field, text in below
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
