"""Checks that the packages of a cluster are installed; a server on one machine needs none of them."""

from __future__ import annotations

from importlib.util import find_spec

from xinference.error_codes import Code
from xinference.errors import Problem


def require_cluster_packages() -> None:
    """Check that a cluster's certificates can be made.

    Raises:
        Problem: 500 ``cluster_not_installed``.
    """
    if find_spec("cryptography") is None:
        raise Problem(
            Code.CLUSTER_NOT_INSTALLED,
            "The package cryptography, which makes the certificates of a cluster, is not installed.",
            hint='Install Xinference with its cluster part: pip install "xinference[cluster]"',
        )
