"""The Dockerfile: who its processes run as, what process 1 is, and that all it names exists."""

from __future__ import annotations

import json
import os
import re
import tomllib

from tests.deploy.dockerfile import IMAGE_SCRIPTS, ROOT, instructions, of_stage
from xinference.config import Settings


def test_the_processes_do_not_run_as_root() -> None:
    for stage in ("cpu", "cuda"):
        assert of_stage(stage, "USER")[-1] == "10001:10001"
        assert not [each for each in of_stage(stage, "RUN") if "sudo" in each or "chmod 777" in each]


def test_process_1_reaps_the_keepers_of_engines() -> None:
    assert of_stage("cpu", "ENTRYPOINT") == ['["tini", "--"]']
    assert " tini" in of_stage("cpu", "RUN")[0]
    assert of_stage("cuda", "ENTRYPOINT") == [], "the stage has that of the stage cpu"


def test_every_script_that_is_named_exists_and_can_be_run() -> None:
    command = json.loads(of_stage("cpu", "CMD")[0])
    check = json.loads(of_stage("cpu", "HEALTHCHECK")[0].partition("CMD ")[2])
    for name in (command[0], check[0], "start-worker", "drain-worker"):
        script = IMAGE_SCRIPTS / name
        assert os.access(script, os.X_OK), name
        assert script.read_text().startswith(("#!/bin/sh\n", "#!/opt/xinference/bin/python\n"))


def test_every_file_that_is_copied_exists_and_is_not_ignored() -> None:
    allowed = [
        line[1:] for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    for each in instructions():
        if each.word != "COPY" or each.rest.startswith("--from"):
            continue
        *sources, _ = [word for word in each.rest.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.rstrip("/") in allowed, source


def test_the_packages_are_those_of_the_lock_with_their_hashes() -> None:
    install = of_stage("build", "RUN")[1]
    assert "--require-hashes --requirement requirements-images.lock" in install
    lock = (ROOT / "requirements-images.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in [*project["dependencies"], *(ROOT / "deploy/requirements.in").read_text().split()]:
        name = re.sub(r"[-_.]+", "-", re.split(r"[><=;\[ ]", wanted)[0]).lower()
        assert re.search(rf"^{re.escape(name)}(\[[\w,]+\])?==", lock, re.MULTILINE), name
    base = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    images = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    assert {name: images.get(name) for name in base} == base, "the image runs the versions that are tested"


def test_the_ports_are_those_of_the_settings() -> None:
    settings = Settings()
    assert of_stage("cpu", "EXPOSE") == [f"{settings.port} {settings.worker_port} {settings.supervisor_port}"]


def test_no_secret_is_in_the_images() -> None:
    for each in instructions():
        assert each.word not in ("ARG", "ADD")
        assert not re.search(r"(?i)token|passw|secret|api_?key|_hf_", each.rest), each.rest
