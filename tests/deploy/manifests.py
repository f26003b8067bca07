"""Reads the manifests of the folder `deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BASE = KUBERNETES / "base"
RAY_CLUSTER = KUBERNETES / "kuberay" / "raycluster.yaml"
Json = dict[str, Any]


def documents(path: Path) -> list[Json]:
    """The documents of a file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def base() -> dict[tuple[str, str], Json]:
    """The resources of the base by kind and name."""
    found = [each for name in documents(BASE / "kustomization.yaml")[0]["resources"] for each in documents(BASE / name)]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod_template(resource: Json) -> Json:
    """The pod template of a Deployment or a StatefulSet."""
    template: Json = resource["spec"]["template"]
    return template


def templates() -> dict[str, Json]:
    """The pod templates of the base and of the example for KubeRay, by a name for messages."""
    found = {name: pod_template(each) for (kind, name), each in base().items() if kind in ("Deployment", "StatefulSet")}
    group = documents(RAY_CLUSTER)[0]["spec"]["workerGroupSpecs"][0]
    return {**found, "raycluster": group["template"]}


def our_container(template: Json) -> Json:
    """The container of a pod template that runs an image of this repository."""
    found = [each for each in template["spec"]["containers"] if each["image"].startswith("xinference:")]
    assert len(found) == 1
    return dict(found[0])
