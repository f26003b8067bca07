"""`make check-deploy`: hadolint, the schemas of Kubernetes, and the steps of the image `cpu` in a new folder.

What a container engine does is imitated: the instructions RUN of the stage `build`, with the paths of the image below a
folder; then the scripts of the image start a supervisor and a worker from there, and drain the worker.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.dockerfile import DOCKERFILE, IMAGE_SCRIPTS, ROOT, of_stage
from tests.deploy.manifests import BASE, KUBERNETES, RAY_CLUSTER, documents
from tests.support.ports import free_port

KUBERNETES_VERSION = "1.37"
#: Maximum time for the start of a process and for its drain, in seconds.
SECONDS = 120


def main() -> None:
    lint()
    for name, resource in manifests():
        validate(name, resource)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        try_scripts(folder)
    print("all checks passed")


def lint() -> None:
    """The Dockerfile, by hadolint: no warning."""
    hadolint = Path(sys.executable).parent / "hadolint"
    subprocess.run([hadolint, "--failure-threshold", "warning", DOCKERFILE], check=True)
    print("hadolint: no warning")


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """The resources with names for messages: as they are, and as `kubectl` renders them, if it is installed."""
    for path in sorted(BASE.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from ((path.name, each) for each in documents(path))
    for group in ray_groups():
        # The schema of RayCluster is that of KubeRay's operator; the pods in it are Kubernetes's own.
        yield "raycluster.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod_of(group)}
    if shutil.which("kubectl") is None:
        print("kubectl is not installed: the overlays are not rendered")
        return
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        for component in (None, "shared-cache"):
            yield from ((f"{overlay.name} with {component}", each) for each in rendered(overlay, component))


def ray_groups() -> list[dict[str, Any]]:
    spec = documents(RAY_CLUSTER)[0]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pod_of(group: dict[str, Any]) -> dict[str, Any]:
    return {"spec": group["template"]["spec"]}


def rendered(overlay: Path, component: str | None) -> list[dict[str, Any]]:
    """The resources of an overlay, as `kubectl` renders them."""
    with tempfile.TemporaryDirectory(dir=KUBERNETES) as name:
        found: dict[str, Any] = {"resources": [f"../overlays/{overlay.name}"]}
        if component is not None:
            found["components"] = [f"../components/{component}"]
        (Path(name) / "kustomization.yaml").write_text(yaml.safe_dump(found))
        text = subprocess.run(["kubectl", "kustomize", name], check=True, capture_output=True, text=True).stdout
    return [each for each in yaml.safe_load_all(text) if each is not None]


def validate(name: str, resource: dict[str, Any]) -> None:
    """One resource, by the schema of its kind; unknown fields are refused."""
    from kubernetes_validate import validate as by_schema

    by_schema(resource, KUBERNETES_VERSION, strict=True)
    print(f"valid: {name}: {resource['kind']} {resource['metadata']['name']}")


def build(folder: Path) -> None:
    """Run the steps of the stage `build`, and copy the scripts."""
    source = folder / "src"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "requirements-images.lock"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "opt").mkdir()
    for step in of_stage("build", "RUN"):
        command = step.replace("/opt/", f"{folder}/opt/").replace("/wheels", f"{folder}/wheels")
        command = f"{sys.executable} {command.removeprefix('python ')}" if step.startswith("python ") else command
        print(f"RUN {step}", flush=True)
        subprocess.run(
            ["sh", "-c", command], cwd=source, env=clean_environment(), check=True, stdout=subprocess.DEVNULL
        )
    for script in IMAGE_SCRIPTS.iterdir():
        text = script.read_text().replace("#!/opt/", f"#!{folder}/opt/")
        target = folder / "opt" / "xinference" / "bin" / script.name
        target.write_text(text)
        target.chmod(0o755)


def clean_environment() -> dict[str, str]:
    """This environment without what would let a program find the sources."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XINFERENCE_"))}


def try_scripts(folder: Path) -> None:
    """Start a supervisor and a worker, let the worker join, and drain it."""
    api, link = free_port(), free_port()
    endpoint = f"http://127.0.0.1:{api}"
    supervisor = environment(folder, "supervisor", XINFERENCE_PORT=str(api))
    worker = environment(folder, "worker", XINFERENCE_ENDPOINT=endpoint)
    ports = ["--port", str(api), "--supervisor-port", str(link)]
    with running(["start-supervisor", "--no-models", *ports], supervisor):
        wait("the supervisor is healthy", lambda: code("healthcheck", supervisor) == 0)
        token = json.loads(output(["xinference", "cluster", "token", "create", "--json"], supervisor))["token"]
        worker["XINFERENCE_API_KEY"] = (Path(supervisor["XINFERENCE_HOME"]) / "admin.key").read_text().strip()
        words = ["start-worker", "--endpoint", endpoint, "--worker-port", "0"]
        with running(words, worker | {"XINFERENCE_JOIN_TOKEN": token}):
            wait("the worker is healthy", lambda: code("healthcheck", worker) == 0)
            subprocess.run(["drain-worker", "60"], env=worker, check=True)
            wait("the worker is drained", lambda: state(worker) == "DRAINING")
        if code("healthcheck", worker) == 0:
            raise SystemExit("a worker that has ended is healthy")
        with running(words, worker | {"XINFERENCE_JOIN_TOKEN": ""}):
            wait("the worker takes replicas again", lambda: state(worker) == "READY")


def environment(folder: Path, name: str, **more: str) -> dict[str, str]:
    home = folder / name
    return clean_environment() | {
        "PATH": f"{folder}/opt/xinference/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "XINFERENCE_HOME": str(home / "home"),
        **more,
    }


@contextmanager
def running(words: list[str], env: dict[str, str]) -> Iterator[None]:
    """A process that is ended with the block."""
    process = subprocess.Popen(words, env=env)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait(what: str, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not so after {SECONDS} s: {what}")
        time.sleep(0.5)
    print(what, flush=True)


def code(script: str, env: dict[str, str]) -> int:
    return subprocess.run([script], env=env, capture_output=True).returncode


def output(words: list[str], env: dict[str, str]) -> str:
    return subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def state(env: dict[str, str]) -> str:
    nodes = json.loads(output(["xinference", "cluster", "info", "--json"], env))
    return str(next(node["state"] for node in nodes if node["node_id"] != "local"))


if __name__ == "__main__":
    main()
