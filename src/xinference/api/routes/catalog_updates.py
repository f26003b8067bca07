"""The updates of the catalog: fetch, compare and roll back, and the paths of them that Xinference 4 has."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api import catalog_schemas
from xinference.api.dependencies import ControllerDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.control.catalog_updates import CatalogRequest

router = APIRouter(tags=["catalog"], route_class=StrictRoute, responses=ERROR_RESPONSES)
Json = dict[str, Any]
_FETCH = problems(404, 409, 413, 415, 502, 503, 504, 507)


class CatalogBody(BaseModel):
    """A catalog, and the families that are taken from it."""

    model_config = ConfigDict(protected_namespaces=())

    source: str | None = Field(None, description="An https: address or a package; by default XINFERENCE_CATALOG_SOURCE")
    sha256: str | None = Field(None, description="The hash of the catalog, or of the package's wheel")
    catalog: str | None = Field(None, description="The catalog itself, as the text of its JSON")
    model_type: str | None = Field(None, description="Take only the families of this type")
    model_name: str | None = Field(None, description="Take only this family")

    def request(self) -> CatalogRequest:
        return CatalogRequest(self.source, self.sha256, self.catalog, self.model_type, self.model_name)


class UpdateTypeBody(BaseModel):
    """The type whose families are updated."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str
    source: str | None = None
    sha256: str | None = None


class UpdateSpecBody(UpdateTypeBody):
    """The family that is updated."""

    model_name: str


@router.get("/v1/catalog", response_model=catalog_schemas.Catalogs)
async def catalogs(controller: ControllerDep) -> Json:
    """Show the catalog in use and the stored ones, newest first."""
    return controller.catalog.describe()


@router.post("/v1/catalog/update", response_model=catalog_schemas.CatalogChange, responses=_FETCH)
async def update(controller: ControllerDep, body: CatalogBody) -> Json:
    """Fetch a catalog, check it and use it at once; models that run are not touched."""
    return await controller.catalog.update(body.request())


@router.get("/v1/catalog/diff", response_model=catalog_schemas.CatalogChange)
async def last_change(controller: ControllerDep) -> Json:
    """Show what the last update has changed."""
    return await controller.catalog.compare()


@router.post("/v1/catalog/diff", response_model=catalog_schemas.CatalogChange, responses=_FETCH)
async def diff(controller: ControllerDep, body: CatalogBody) -> Json:
    """Show what an update would change."""
    return await controller.catalog.compare(body.request())


@router.post("/v1/catalog/rollback", response_model=catalog_schemas.CatalogChange, responses=problems(409))
async def rollback(controller: ControllerDep) -> Json:
    """Use the catalog before the last update."""
    return await controller.catalog.rollback()


@router.post("/v1/models/update_type", response_model=catalog_schemas.CatalogChange, responses=_FETCH)
async def update_type(controller: ControllerDep, body: UpdateTypeBody) -> Json:
    """Update the families of one type from XINFERENCE_CATALOG_SOURCE, or from a named source."""
    request = CatalogRequest(body.source, body.sha256, model_type=body.model_type)
    return await controller.catalog.update(request)


@router.post("/v1/models/update_spec", response_model=catalog_schemas.CatalogChange, responses=_FETCH)
async def update_spec(controller: ControllerDep, body: UpdateSpecBody) -> Json:
    """Update one family from XINFERENCE_CATALOG_SOURCE, or from a named source."""
    request = CatalogRequest(body.source, body.sha256, model_type=body.model_type, model_name=body.model_name)
    return await controller.catalog.update(request)
