"""A server on one machine loads nothing of a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

CODE = """
import sys
import xinference.server
names = ("xinference.fabric", "xinference.nodes.remote", "xinference.nodes.agent", "xinference.nodes.messages",
         "xinference.nodes.membership", "xinference.planning.spread", "cryptography", "ray")
print([name for name in sys.modules if name.startswith(names)])
"""


def test_the_server_of_one_machine_imports_no_part_of_a_cluster() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
