"""Checks that the packages of a cluster are installed; a server on one machine needs none of them."""

from __future__ import annotations

from importlib.util import find_spec

from xinference.error_codes import Code
from xinference.errors import Problem


def require_cluster_packages(*, ray: bool = False) -> None:
    """Check that a cluster's certificates can be made, and with `ray` that a Ray cluster can be joined.

    Raises:
        Problem: 500 ``cluster_not_installed``, ``ray_not_installed``.
    """
    if ray and find_spec("ray") is None:
        raise Problem(
            Code.RAY_NOT_INSTALLED,
            "Ray, which --ray-address needs, is not installed.",
            hint="Install Xinference with its cluster part, and the version of Ray that the Ray cluster has: "
            'pip install "xinference[cluster]"',
        )
    if find_spec("cryptography") is None:
        raise Problem(
            Code.CLUSTER_NOT_INSTALLED,
            "The package cryptography, which makes the certificates of a cluster, is not installed.",
            hint='Install Xinference with its cluster part: pip install "xinference[cluster]"',
        )
