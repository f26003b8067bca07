from __future__ import annotations

import io
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from tests.environments.fake_engine import SPEC, FakeEngine, unheard
from xinference.errors import Problem

GO = threading.Event()


@pytest.fixture
def bundle(engine: FakeEngine) -> Path:
    return engine.make().pack(SPEC, engine.root / "out" / "tiny.tar", unheard, GO)


@pytest.mark.process
def test_a_bundle_holds_the_lock_and_its_wheels(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        assert tar.getnames() == [
            "environment.toml",
            "requirements.txt",
            "wheels/tiny_dependency-1.0-py3-none-any.whl",
            "wheels/tiny_engine-1.0-py3-none-any.whl",
        ]


@pytest.mark.process
def test_a_bundle_installs_offline_in_a_release_that_does_not_ship_it(engine: FakeEngine, bundle: Path) -> None:
    for folder in (engine.wheels, engine.locks, engine.home):
        shutil.rmtree(folder)
    environments = engine.environments(offline=True)
    spec, python = environments.install_from(bundle, unheard, GO)
    assert spec == SPEC
    assert environments.find(SPEC) == python
    assert not engine.leftovers()


@pytest.mark.process
def test_a_bundle_with_an_altered_wheel_is_refused(engine: FakeEngine, bundle: Path) -> None:
    altered = rewrite(bundle, {"wheels/tiny_engine-1.0-py3-none-any.whl": b"no wheel"})
    with pytest.raises(Problem) as caught:
        engine.environments().install_from(altered, unheard, GO)
    assert caught.value.code == "environment_failed"
    assert not engine.whole()


@pytest.mark.process
@pytest.mark.parametrize("name", ["../out.whl", "/tmp/out.whl", "wheels/../../out.whl", "wheels/.hidden.whl", "x.py"])
def test_a_member_that_is_no_wheel_is_refused_and_goes_nowhere(engine: FakeEngine, bundle: Path, name: str) -> None:
    before = sorted(engine.root.rglob("*.whl"))
    with pytest.raises(Problem) as caught:
        engine.environments().install_from(rewrite(bundle, {name: b"x"}), unheard, GO)
    assert caught.value.code == "bad_bundle"
    assert name in caught.value.cause
    assert sorted(engine.root.rglob("*.whl")) == before


@pytest.mark.process
def test_a_link_in_a_bundle_is_refused(engine: FakeEngine, bundle: Path) -> None:
    with tarfile.open(bundle, "a") as tar:
        link = tarfile.TarInfo("wheels/link-1.0-py3-none-any.whl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(Problem) as caught:
        engine.environments().install_from(bundle, unheard, GO)
    assert caught.value.code == "bad_bundle"


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_a_file_that_is_no_bundle_is_refused(engine: FakeEngine, content: bytes) -> None:
    file = engine.root / "some.tar"
    file.write_bytes(content)
    with pytest.raises(Problem) as caught:
        engine.environments().install_from(file, unheard, GO)
    assert (caught.value.code, caught.value.status) == ("bad_bundle", 400)


@pytest.mark.process
def test_a_lock_whose_version_climbs_out_is_refused(engine: FakeEngine, bundle: Path) -> None:
    recipe = engine.locks.joinpath(f"{SPEC.name}.toml").read_text().replace('version = "1.0"', 'version = "../../1.0"')
    with pytest.raises(Problem) as caught:
        engine.environments().install_from(rewrite(bundle, {"environment.toml": recipe.encode()}), unheard, GO)
    assert caught.value.code == "bad_lock"


def rewrite(bundle: Path, changed: dict[str, bytes]) -> Path:
    """The bundle with other or further members."""
    result = bundle.with_name("changed.tar")
    with tarfile.open(bundle) as old, tarfile.open(result, "w") as new:
        for member in old:
            if member.name not in changed:
                new.addfile(member, old.extractfile(member))
        for name, content in changed.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return result
