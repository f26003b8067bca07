"""A bundle: one environment's lock and wheels in one file, for installation without a network."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from threading import Event

from xinference.environments.build import BuildContext, create_environment
from xinference.environments.cache_growth import folder_bytes
from xinference.environments.child import run
from xinference.environments.lock import Lock, parse_lock
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.atomic_file import atomic_write
from xinference.files.disk_space import need_space
from xinference.files.progress import Progress, cancelled_problem

_RECIPE, _REQUIREMENTS = "environment.toml", "requirements.txt"
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/: no slash, no leading dot.
_WHEEL = re.compile(r"wheels/([A-Za-z0-9_][A-Za-z0-9._+!-]*\.whl)")
_MAX_TEXT_BYTES = 4 << 20
_FETCH_SECONDS = 3 * 3600.0


def pack(lock: Lock, out: Path, folder: Path, context: BuildContext, progress: Progress, cancelled: Event) -> Path:
    """Fetch a lock's wheels into the empty `folder` and write the bundle `out`.

    Raises:
        Problem: ``cancelled``, ``environment_failed``, ``disk_full``, ``cannot_write``.
    """
    wheels = _fetch(lock, folder, context, progress, cancelled)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    need_space(out.absolute().parent, folder_bytes(wheels), out.name)
    with atomic_write(out, cancelled) as file:
        assert file is not None
        with tarfile.open(fileobj=file, mode="w") as tar:
            _add_text(tar, _RECIPE, lock.recipe_text)
            _add_text(tar, _REQUIREMENTS, lock.requirements_text)
            for wheel in sorted(wheels.iterdir()):
                tar.add(wheel, f"wheels/{wheel.name}")
    return out


def read_lock(bundle: Path) -> Lock:
    """The lock of a bundle.

    Raises:
        Problem: 400 ``bad_bundle``.
    """
    with _open(bundle) as tar:
        recipe, requirements = _text(tar, bundle, _RECIPE), _text(tar, bundle, _REQUIREMENTS)
    return parse_lock(recipe, requirements, f"{_RECIPE} in {bundle.name}")


def unpack_wheels(bundle: Path, into: Path, cancelled: Event) -> Path:
    """Copy a bundle's wheels into a new folder. Their hashes are checked when they are installed.

    Raises:
        Problem: 400 ``bad_bundle`` for a member that is not a wheel; 507 ``disk_full``; ``cancelled``.
    """
    need_space(into.parent, bundle.stat().st_size, bundle.name)
    into.mkdir()
    with _open(bundle) as tar:
        for member in tar:
            if member.isreg() and member.name in (_RECIPE, _REQUIREMENTS):
                continue
            match = _WHEEL.fullmatch(member.name)
            source = tar.extractfile(member) if match and member.isreg() else None
            if match is None or source is None:
                raise _bad(bundle, f"contains {member.name!r}, which is not a wheel")
            if cancelled.is_set():
                raise cancelled_problem(bundle.name, action="Unpacking", hint="Start again.")
            # Numbered names, so that the bundle cannot choose the path of a written file.
            with (into / match[1]).open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return into


def _fetch(lock: Lock, folder: Path, context: BuildContext, progress: Progress, cancelled: Event) -> Path:
    """Download the lock's wheels with pip: uv cannot store them as wheels."""
    wheels, scratch, requirements = folder / "wheels", folder / "tmp", folder / _REQUIREMENTS
    wheels.mkdir()
    scratch.mkdir()
    requirements.write_text(lock.requirements_text)
    python = create_environment(lock, folder / "python", context, cancelled)
    name = lock.spec.name
    hints = [flag for index in lock.recipe.indexes for flag in ("--extra-index-url", index)]
    for extra in ([], hints) if hints else ([],):
        result = run(
            [
                *(sys.executable, "-P", "-m", "pip", "--python", str(python), "download", "--no-deps"),
                *("--require-hashes", "--only-binary", ":all:", "--progress-bar", "off", "--no-input", "--no-color"),
                *("--disable-pip-version-check", "-d", str(wheels), "-r", str(requirements), *extra),
            ],
            variables={**os.environ, "TMPDIR": str(scratch)},  # pip's partial files, on the same disk
            cancelled=cancelled,
            what=f"Packing {name}",
            timeout=_FETCH_SECONDS,
            tick=lambda _: progress(folder_bytes(wheels) + folder_bytes(scratch), None, name),
        )
        if not result.status:
            return wheels
    raise Problem(
        Code.ENVIRONMENT_FAILED,
        f"The wheels of {name} could not be fetched.",
        hint="The last lines are pip's output.",
        log_tail=result.tail,
    )


def _open(bundle: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(bundle, "r:")
    except tarfile.TarError as error:
        raise _bad(bundle, "is not a bundle of `xinference env pack`") from error
    except OSError as error:
        raise Problem(Code.BAD_BUNDLE, f"{bundle} cannot be read: {error.strerror}.") from error


def _text(tar: tarfile.TarFile, bundle: Path, name: str) -> str:
    try:
        member = tar.getmember(name)
        file = tar.extractfile(member) if member.isreg() and member.size <= _MAX_TEXT_BYTES else None
        if file is not None:
            return file.read().decode()
    except (KeyError, UnicodeDecodeError, tarfile.TarError) as error:
        raise _bad(bundle, f"has no readable {name}") from error
    raise _bad(bundle, f"has no readable {name}")


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _bad(bundle: Path, what: str) -> Problem:
    return Problem(Code.BAD_BUNDLE, f"{bundle} {what}.", hint="Create it again: `xinference env pack`.")
