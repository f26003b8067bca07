"""The manifests can be read, and their names, ports and references agree with each other and with the settings."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dockerfile import IMAGE_SCRIPTS
from tests.deploy.manifests import DEPLOY, KUBERNETES, RAY_CLUSTER, base, documents, our_container, templates
from xinference.config import Settings

SETTINGS = Settings()
PORTS = {"api": SETTINGS.port, "link": SETTINGS.supervisor_port, "data": SETTINGS.worker_port}
YAML = sorted(DEPLOY.rglob("*.yaml"))
TEMPLATES = templates()


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_file_is_yaml_with_a_kind_or_a_name(path: Path) -> None:
    for document in documents(path):
        assert document.get("kind") or document.get("name")


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_what_a_kustomization_names_exists(path: Path) -> None:
    (found,) = documents(path)
    for name in found.get("resources", []):
        assert (path.parent / name).exists(), name
    for patch in found.get("patches", []):
        for target in documents(path.parent / patch["path"]):
            patched = base()[target["kind"], target["metadata"]["name"]]
            names = {each["name"] for each in patched["spec"]["template"]["spec"]["containers"]}
            assert {each["name"] for each in target["spec"]["template"]["spec"]["containers"]} <= names


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_container_has_the_ports_and_the_scripts_that_exist(name: str) -> None:
    container = our_container(TEMPLATES[name])
    for port in container["ports"]:
        assert PORTS[port["name"]] == port["containerPort"]
    names = {port["name"] for port in container["ports"]}
    commands = [container["args"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        found = container.get(probe, {})
        for kind in ("httpGet", "tcpSocket"):
            if kind in found:
                assert found[kind]["port"] in names
        if "exec" in found:
            commands.append(found["exec"]["command"])
    if "lifecycle" in container:
        commands.append(container["lifecycle"]["preStop"]["exec"]["command"])
    for command in commands:
        assert (IMAGE_SCRIPTS / command[0]).is_file(), command


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    pod = TEMPLATES[name]["spec"]
    context = {**pod["securityContext"], **our_container(TEMPLATES[name])["securityContext"]}
    assert context["runAsNonRoot"] is True and context["runAsUser"] == 10001 and context["fsGroup"] == 10001
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not pod.get("hostNetwork") and not pod.get("hostPID")
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_volume_that_is_mounted_exists(name: str) -> None:
    claims = [each["metadata"]["name"] for key, found in base().items() if key[1] == name for each in claims_of(found)]
    pod = TEMPLATES[name]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in our_container(TEMPLATES[name])["volumeMounts"]:
        assert mount["name"] in volumes or mount["name"] in claims
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in base()


def claims_of(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return list(resource["spec"].get("volumeClaimTemplates", []))


def test_services_and_policies_select_pods_that_exist() -> None:
    labels = [template["metadata"]["labels"] for template in TEMPLATES.values()]
    for (kind, name), resource in base().items():
        selectors = []
        if kind == "Service":
            selectors.append(resource["spec"]["selector"])
            names = {port["targetPort"] for port in resource["spec"]["ports"]}
            selected = [
                each for each in TEMPLATES.values() if selectors[0].items() <= each["metadata"]["labels"].items()
            ]
            for template in selected:
                assert names <= {port["name"] for port in our_container(template)["ports"]}
            for port in resource["spec"]["ports"]:
                assert PORTS[port["name"]] == port["port"]
        if kind == "NetworkPolicy":
            selectors.append(resource["spec"]["podSelector"]["matchLabels"])
            for rule in resource["spec"]["ingress"]:
                selectors += [each["podSelector"]["matchLabels"] for each in rule.get("from", [])]
                assert {port["port"] for port in rule["ports"]} <= set(PORTS.values())
        if kind in ("Deployment", "StatefulSet"):
            selectors.append(resource["spec"]["selector"]["matchLabels"])
        for selector in selectors:
            assert any(selector.items() <= each.items() for each in labels), (kind, name)


def test_one_supervisor_runs_at_a_time_and_a_worker_is_drained_before_it_ends() -> None:
    supervisor, workers = base()["Deployment", "xinference-supervisor"], base()["StatefulSet", "xinference-worker"]
    assert supervisor["spec"]["replicas"] == 1 and supervisor["spec"]["strategy"] == {"type": "Recreate"}
    assert ("Service", workers["spec"]["serviceName"]) in base()
    for name in ("xinference-worker", "raycluster"):
        container = our_container(TEMPLATES[name])
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command[0] == "drain-worker"
        last_answers = SETTINGS.drain_seconds
        assert TEMPLATES[name]["spec"]["terminationGracePeriodSeconds"] >= int(command[1]) + last_answers
        assert container["readinessProbe"]["exec"]["command"] == ["healthcheck"]
        host = f"http://xinference-supervisor:{SETTINGS.port}"
        assert container["args"] == ["start-worker", "--endpoint", host]
        assert ("Service", "xinference-supervisor") in base()


def test_the_worker_of_the_ray_cluster_is_that_of_the_stateful_set() -> None:
    ours, theirs = our_container(TEMPLATES["xinference-worker"]), our_container(TEMPLATES["raycluster"])
    for key in ("args", "ports", "readinessProbe", "lifecycle", "volumeMounts"):
        assert theirs[key] == ours[key]
    assert [each["name"] for each in theirs["env"]] == [each["name"] for each in ours["env"]]


def test_only_secrets_of_the_page_are_needed_and_none_is_in_a_file() -> None:
    page = (DEPLOY.parent / "docs" / "containers.md").read_text()
    for template in TEMPLATES.values():
        for variable in our_container(template).get("env", []):
            if "valueFrom" in variable:
                assert f"create secret generic {variable['valueFrom']['secretKeyRef']['name']}" in page
            elif re.search(r"TOKEN|KEY", variable["name"]):
                raise AssertionError(variable["name"])
    assert not [path for path in YAML if "kind: Secret" in path.read_text()]


def test_the_compose_file_has_a_supervisor_and_two_workers_with_volumes_of_their_own() -> None:
    (found,) = documents(DEPLOY / "compose.yaml")
    services = found["services"]
    assert sorted(services) == ["supervisor", "worker-1", "worker-2"]
    mounted = [mount for service in services.values() for mount in service["volumes"]]
    assert {mount.partition(":")[0] for mount in mounted} == set(found["volumes"])
    own = [mount for mount in mounted if mount.endswith(":/data")]
    assert len(set(own)) == 3
    for name, service in services.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and not service.get("privileged")
        assert (IMAGE_SCRIPTS / service["command"][0]).is_file()
        if name != "supervisor":
            assert "shared-cache:/shared:ro" in service["volumes"]
            assert service["command"][1:] == ["--endpoint", f"http://supervisor:{SETTINGS.port}"]
            # No engine outlives its container, so its replicas are moved before it ends.
            assert service["stop_signal"] == "SIGINT"
            assert int(service["stop_grace_period"].rstrip("s")) > SETTINGS.grace_seconds + SETTINGS.drain_seconds
    assert services["supervisor"]["ports"] == [f"127.0.0.1:{SETTINGS.port}:{SETTINGS.port}"]


def test_the_ray_cluster_names_one_version_of_ray() -> None:
    (found,) = documents(RAY_CLUSTER)
    images = re.findall(r"rayproject/ray:([\d.]+)", RAY_CLUSTER.read_text())
    assert len(images) == 2 and all(a == b for a, b in pairwise([found["spec"]["rayVersion"], *images]))
