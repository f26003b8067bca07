"""Runs ``pip download``: start, progress, cancellation, and the conversion of failures to problems."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from xinference.child_process import end_group, read_lines, start_child
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.disk_space import disk_full
from xinference.files.progress import cancelled_problem
from xinference.hubs.transfer.verified_copy import hash_mismatch

_TAIL_LINES = 20
_POLL_SECONDS = 0.1
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
# pip writes these lines only to its log; its other output is the same for a silent index and a missing package.
_UNFETCHED = re.compile(r"(Could not fetch URL (?!.*: 404 Client Error).*) - skipping")
_BROKEN = re.compile(r"connection broken by|Connection interrupted|timed out|is not a trusted or secure host")


def pip_download(
    requirement: str,
    sha256: str | None,
    into: Path,
    *,
    on_progress: Callable[[int, int | None], None],
    cancelled: threading.Event,
) -> None:
    """Download one wheel without its dependencies into the folder `into`, as the user's pip is configured.

    `requirement` is ``name==version``. Index, mirrors, proxies and certificates come from pip's own files and
    from PIP_* variables. pip writes its unfinished file inside `into` too, so that it is on the same disk and is
    removed with the folder. When this returns or raises, the process has ended.

    Raises:
        Problem: ``cancelled``, ``package_not_found``, ``hub_unreachable``, ``hash_mismatch``, ``disk_full`` or
            ``download_failed``, the last four with pip's last lines.
    """
    scratch = into / "tmp"
    scratch.mkdir()
    requirements, log = into / "requirements.txt", into / "pip.log"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n" if sha256 else f"{requirement}\n")
    arguments = [
        *("download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "raw"),
        *("--disable-pip-version-check", "--no-input", "--no-color", "--log", str(log)),
        *("-d", str(into), "-r", str(requirements)),
        *(["--require-hashes"] if sha256 else []),
    ]
    process = start_child(
        # -P: a file named pip.py in the working folder is not pip.
        [sys.executable, "-P", "-m", "pip", *arguments],
        {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    )
    try:
        tail = _watch(process, requirement, on_progress, cancelled)
        status = process.wait()
    finally:
        end_group(process)
    if status:
        raise _explain(requirement, status, [*_unfetched_pages(log), *tail], into)


def _watch(
    process: subprocess.Popen[bytes],
    requirement: str,
    on_progress: Callable[[int, int | None], None],
    cancelled: threading.Event,
) -> list[str]:
    """Read pip's output to its end, report progress, and return the last other lines."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    for lines in read_lines(process, _POLL_SECONDS):
        if cancelled.is_set():
            raise cancelled_problem(requirement)
        for line in lines:
            _handle_line(line, tail, on_progress)
    return list(tail)


def _handle_line(line: str, tail: deque[str], on_progress: Callable[[int, int | None], None]) -> None:
    if match := _PROGRESS.fullmatch(line):
        done, total = int(match[1]), int(match[2])
        on_progress(done, total or None)  # pip writes 0 if the server did not report the size
    else:
        tail.append(line)


def _unfetched_pages(log: Path) -> list[str]:
    """pip's log lines on index pages that it could not fetch, except those with a 404."""
    if not log.exists():  # pip ended before it opened the log
        return []
    matches = (_UNFETCHED.search(line) for line in log.read_text(errors="replace").splitlines())
    return [match[1] for match in matches if match][-_TAIL_LINES:]


def _explain(requirement: str, status: int, tail: list[str], into: Path) -> Problem:
    """Convert pip's failure to a problem. The order matters: pip also reports "not found" if no index has answered."""
    output = "\n".join(tail)
    if "No space left on device" in output:
        return disk_full(f"The disk of {into} has no space for {requirement}.")
    if "DO NOT MATCH THE HASHES" in output:
        problem = hash_mismatch(f"The index's file for {requirement} does not have the expected sha256.")
        return problem.replace(log_tail=tail)
    if "Could not fetch URL" in output or _BROKEN.search(output):
        return Problem(
            Code.HUB_UNREACHABLE,
            f"pip could not reach a package index to fetch {requirement}.",
            hint="Check the network, and `pip config list` for index, proxy and certificate.",
            log_tail=tail,
        )
    if "No matching distribution found" in output:
        return Problem(
            Code.PACKAGE_NOT_FOUND,
            f"No package index that pip is configured for has {requirement}.",
            hint="`pip config list` shows the configured indexes; a mirror may be out of date.",
            log_tail=tail,
        )
    return Problem(
        Code.DOWNLOAD_FAILED,
        f"pip ended with status {status} while fetching {requirement}.",
        hint="pip's last lines give the reason; `pip download` with the same requirement repeats it.",
        log_tail=tail,
    )
