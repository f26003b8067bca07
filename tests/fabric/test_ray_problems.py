"""Each error of Ray at the connection is told by its type, with a way out."""

from __future__ import annotations

import pytest

from xinference.error_codes import Code
from xinference.fabric.ray_problems import lost_of, unreachable

MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\n"
    "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError(MISMATCH), Code.RAY_VERSION_DIFFERS, ("2.59.0", "2.60.0", "same versions")),
        (ConnectionRefusedError(111, "Connection refused"), Code.RAY_UNREACHABLE, ("10.0.0.1:6379", "refused")),
        (TimeoutError(), Code.RAY_UNREACHABLE, ("TimeoutError", "--ray-address")),
        (ConnectionError("Could not find any running Ray instance."), Code.RAY_UNREACHABLE, ("running Ray instance",)),
        (RuntimeError("InvalidAuthToken: the token is wrong"), Code.RAY_REFUSED, ("RAY_AUTH_TOKEN",)),
        (ImportError("Ray Client requires grpcio"), Code.RAY_NOT_INSTALLED, ("ray[client]",)),
    ],
)
def test_an_error_of_ray_has_its_code_and_a_way_out(error: Exception, code: Code, words: tuple[str, ...]) -> None:
    lost = lost_of("10.0.0.1:6379", error)
    assert lost.code == code and lost.hint
    assert all(word in f"{lost.cause} {lost.hint}" for word in words), lost


def test_a_long_text_of_ray_is_cut() -> None:
    assert len(lost_of("auto", RuntimeError("x" * 5000)).cause) < 400
    assert unreachable("its head has not answered").code == Code.RAY_UNREACHABLE
