"""Check the files that `make build` wrote: their contents, and that they install and run without a network.

``python -m tests.packaging.check_build`` needs a git clone and the development environment. The dependencies in
requirements.lock are fetched; the package itself is installed and run without any connection.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.ports import free_port
from xinference import __version__

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
GGML = ROOT / "tests" / "assets" / "tiny-llama2-chat-ggmlv3" / "tiny-llama2-chat.ggmlv3.q4_0.bin"
PROGRAMS = ("xinference", "xinference-local", "xinference-supervisor", "xinference-worker")
#: A connection to anywhere but loopback fails at once.
NO_NETWORK = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9") | {
    "NO_PROXY": "127.0.0.1,localhost",
    "XINFERENCE_OFFLINE": "1",
}


def main() -> None:
    wheel = DIST / f"xinference-{__version__}-py3-none-any.whl"
    sdist = DIST / f"xinference-{__version__}.tar.gz"
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    check_sdist(sdist, tracked)
    check_wheel(wheel, tracked)
    with tempfile.TemporaryDirectory(prefix="xinference-build-") as folder:
        check_rebuild(sdist, wheel, Path(folder, "rebuilt"))
        check_installed(wheel, Path(folder))


def check_sdist(sdist: Path, tracked: set[str]) -> None:
    """It holds what the repository holds, and the metadata."""
    with tarfile.open(sdist) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    same("files of the sdist", names - {"PKG-INFO"}, tracked)
    report(f"{sdist.name}: {len(names)} files, all that are tracked and no others")


def check_wheel(wheel: Path, tracked: set[str]) -> None:
    """It holds every file of the package, data files too, the licence and the version."""
    contents = members(wheel)
    info = f"xinference-{__version__}.dist-info"
    ours = {name for name in contents if name.startswith("xinference/")}
    same("files of the wheel", ours, {name.removeprefix("src/") for name in tracked if name.startswith("src/")})
    for name in ("LICENSE", "NOTICE"):
        assert contents[f"{info}/licenses/{name}"] == digest((ROOT / name).read_bytes()), name
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata, metadata
    report(f"{wheel.name}: {len(ours)} files of the package, its licence and its version")


def check_rebuild(sdist: Path, wheel: Path, folder: Path) -> None:
    """The sdist alone gives the same wheel, byte for byte in each file."""
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", str(folder), str(sdist))
    assert members(folder / wheel.name) == members(wheel)
    report("the sdist builds the same wheel without a network")


def check_installed(wheel: Path, folder: Path) -> None:
    """A new environment with the locked dependencies and the wheel runs the commands and a model."""
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    programs = folder / "venv" / "bin"
    pip = (str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    run(*pip, "--no-index", "--no-deps", str(wheel))
    run(str(programs / "python"), "-m", "pip", "check")
    report("the wheel installs without a network, and pip finds its requirements met")

    work = folder / "work"
    work.mkdir()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("XINFERENCE_", "PYTHON")) and k != "PATH"}
    home = {"XINFERENCE_HOME": str(folder / "home"), "XINFERENCE_PORT": str(free_port())}
    environment = inherited | NO_NETWORK | home | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def xinference(*arguments: str) -> str:
        return run(str(programs / "xinference"), *arguments, cwd=work, environment=environment)

    check_commands(programs, work, xinference("--version"), xinference("env", "list", "--json"))
    xinference("docs", "--out", str(work / "pages"))
    families = len(list((ROOT / "src/xinference/catalog/builtin").glob("*.json")))
    pages = len(list((work / "pages").rglob("*.rst")))
    assert pages > families, f"{pages} pages of {families} families"
    report(f"`docs` writes {pages} pages from the registry in the wheel")

    xinference("convert", str(GGML), "tiny.gguf", "-n", "llama-2-chat", "-s", "7")
    try:
        launched = xinference("launch", "-n", "./tiny.gguf", "-u", "tiny", "--n_ctx", "256", "--n_parallel", "1")
        assert launched.strip() == "tiny", launched
        answer = xinference("generate", "--model-uid", "tiny", "--max-tokens", "8", "--temperature", "0", "The sky is")
        assert answer.strip(), "no answer"
    finally:
        xinference("stop")
    report("a converted model is launched on llama.cpp, answers, and is stopped")


def check_commands(programs: Path, work: Path, version: str, environments: str) -> None:
    """The programs are there, run from the wheel, and find its locks."""
    for name in PROGRAMS:
        assert os.access(programs / name, os.X_OK), name
    assert version == f"xinference {__version__}\n", version
    place = run(str(programs / "python"), "-c", "import xinference; print(xinference.__file__)", cwd=work)
    assert Path(place.strip()).is_relative_to(programs.parent), place
    locks = {path.stem for path in (ROOT / "src/xinference/environments/locks").glob("*.toml")}
    same("environments", {entry["name"] for entry in json.loads(environments)}, locks)
    report(f"`--version` is right, `env list` names the {len(locks)} environments")


def members(wheel: Path) -> dict[str, str]:
    """Name -> hash of each file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: digest(archive.read(name)) for name in archive.namelist()}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def same(what: str, found: set[str], expected: set[str]) -> None:
    """Fail with the differences, if there are any."""
    assert found == expected, f"{what}: missing {sorted(expected - found)}, unexpected {sorted(found - expected)}"


def run(*argv: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The standard output of a command; the script ends with the command's own words if it fails."""
    ended = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    if ended.returncode:
        sys.exit(f"{' '.join(argv)} ended with status {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def report(fact: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {fact}", flush=True)


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
