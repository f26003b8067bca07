"""The processor: cores, instruction sets, NUMA nodes. Pure functions parse the texts of the system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

CPUINFO = Path("/proc/cpuinfo")
NODES = Path("/sys/devices/system/node")
_SYSCTL = ("sysctl", "-n", "machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")
#: macOS's spelling -> Linux's, where they differ by more than case.
_LINUX_NAMES = {"avx1.0": "avx", "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16"}


@dataclass(frozen=True)
class Cpu:
    """One machine's processors."""

    name: str
    flags: frozenset[str]
    """Instruction sets by Linux's names: ``avx2``, ``avx512f``, ``avx512bw``, ``avx512_vnni``, ``amx_int8`` …"""
    cores: int
    """Physical cores this process may run on."""
    numa_nodes: int = 1


def read_cpu() -> Cpu:
    """Read this machine's processors; unreadable values are empty."""
    name, flags = parse_sysctl(_sysctl()) if sys.platform == "darwin" else parse_cpuinfo(_text(CPUINFO))
    nodes = sum(1 for node in NODES.glob("node[0-9]*")) if NODES.is_dir() else 1
    return Cpu(name, flags, _cores(), max(1, nodes))


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and flags of the first processor in ``/proc/cpuinfo`` (``flags`` on x86, ``Features`` on ARM)."""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1].strip() if name else "", frozenset(flags[1].split()) if flags else frozenset()


def parse_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Name and flags from the lines of macOS's ``machdep.cpu``: brand, features, leaf 7 features."""
    name, *features = text.splitlines() or [""]
    words = " ".join(features).lower().split()
    return name.strip(), frozenset(_LINUX_NAMES.get(word, word) for word in words)


def _cores() -> int:
    """The cores that this process may run on: hyper-threads do not accelerate llama.cpp's matrix products."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _sysctl() -> str:
    # Apple silicon does not have these names: the command fails, and there are no x86 flags to report.
    return subprocess.run(_SYSCTL, capture_output=True, text=True, check=False).stdout


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
