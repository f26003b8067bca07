"""The error codes, their statuses and their page hold together."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from xinference.error_codes import Code
from xinference.errors import Problem, system_reason, weights_in_use

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "xinference"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
#: Modules that may give a status and a code: they describe the answer of an engine or of another server, or pass on a
#: problem whose code may be of another version.
OWN_STATUS = {
    "api/errors.py",
    "client/answers.py",
    "client/connection.py",
    "errors.py",
    "gateway/engine_answers.py",
    "gateway/forward.py",
    "gateway/workers/ipc.py",
    "protocol/errors.py",
}
MAKERS = {"Problem": None, "Refusal": None, "bad_request": 400, "not_found": 404}


@functools.cache
def _calls() -> list[tuple[str, ast.Call, str]]:
    """Each call that makes an error, with its module and the name that is called."""
    calls = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        if not any(f"{name}(" in source for name in MAKERS):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in MAKERS:
                    calls.append((str(path.relative_to(PACKAGE)), node, name))
    return calls


def test_the_page_has_every_code_with_its_status_its_meaning_and_its_way_out() -> None:
    rows = {name: (status, meaning, way_out) for name, status, meaning, way_out in ROW.findall(_page())}
    assert list(rows) == [str(code) for code in Code]
    for code in Code:
        status, meaning, way_out = rows[code]
        assert status == (str(code.status) if code.status else "as answered"), code
        assert len(meaning) > 10 and len(way_out) > 5, code


def test_no_code_has_two_statuses() -> None:
    assert len({str(code) for code in Code}) == len(Code)
    for code in Code:
        assert code.status == 0 or 400 <= code.status < 600, code


def test_every_code_is_used() -> None:
    used = {
        name
        for path in PACKAGE.rglob("*.py")
        if path.name != "error_codes.py"
        for name in re.findall(r"\bCode\.([A-Z_]+)\b", path.read_text())
    }
    assert {code.name for code in Code} == used


@pytest.mark.thorough
def test_no_problem_is_made_with_a_text_for_a_code() -> None:
    for path, call, name in _calls():
        first = call.args[0] if call.args else None
        given = (
            first if name in ("Problem", "Refusal") else next((k.value for k in call.keywords if k.arg == "code"), None)
        )
        assert not (isinstance(given, ast.Constant) and isinstance(given.value, str)), f"{path}:{call.lineno}"


@pytest.mark.thorough
def test_only_what_describes_an_answer_gives_a_status_of_its_own() -> None:
    for path, call, _ in _calls():
        if any(keyword.arg == "status" for keyword in call.keywords):
            assert path in OWN_STATUS, f"{path}:{call.lineno}"


@pytest.mark.thorough
def test_bad_request_and_not_found_are_given_codes_of_their_status() -> None:
    for path, call, name in _calls():
        wanted = MAKERS[name]
        for keyword in call.keywords:
            if wanted and keyword.arg == "code":
                for code in re.findall(r"Code\.([A-Z_]+)", ast.unparse(keyword.value)):
                    assert Code[code].status == wanted, f"{path}:{call.lineno}"


def test_no_decision_compares_the_text_of_a_code() -> None:
    comparison = re.compile(r"\.code (?:[=!]=|(?:not )?in) (?:[\"']|\([\"'])")
    for path in PACKAGE.rglob("*.py"):
        assert not comparison.search(path.read_text()), path


def test_a_replaced_code_brings_its_status_and_keeps_the_rest() -> None:
    problem = Problem(Code.DOES_NOT_FIT, "Too large.", stage="room", hint="Take less.", log_tail=["a"])
    changed = problem.replace(code=Code.LOAD_FAILED)
    assert (changed.code, changed.status) == (Code.LOAD_FAILED, 503)
    assert (changed.cause, changed.stage, changed.hint, changed.log_tail) == (
        "Too large.",
        "room",
        "Take less.",
        ("a",),
    )
    assert problem.replace(hint=None).hint is None
    assert problem.at("start").stage == "room"


def test_a_problem_survives_its_json_form_with_its_code() -> None:
    problem = Problem.from_dict(Problem(Code.DISK_FULL, "Full.", stage="fetch").to_dict())
    assert problem.code is Code.DISK_FULL
    assert problem.to_dict()["code"] == "disk_full"


def test_a_code_of_another_version_is_kept_as_text() -> None:
    problem = Problem.from_dict({"code": "from_the_future", "status": 418, "cause": "x"})
    assert (problem.code, problem.status) == ("from_the_future", 418)


@pytest.mark.parametrize("code", [Code.MODEL_NOT_FOUND, "model_not_found"])
def test_a_code_equals_its_text(code: str) -> None:
    assert code == "model_not_found"


def _page() -> str:
    return (ROOT / "docs" / "errors.md").read_text()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(-2, "Name or service not known"), "the host name cannot be resolved"),
        (OSError("[Errno -3] Temporary failure in name resolution"), "the host name cannot be resolved"),
        (OSError(8, "nodename nor servname provided, or not known"), "the host name cannot be resolved"),
        (OSError(113, "No route to host"), "No route to host"),
        (TimeoutError(), "TimeoutError"),
        (OSError("Server disconnected without sending a response."), "Server disconnected without sending a response"),
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired (_ssl.c:1006)"), "certificate has expired"),
        (
            OSError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
            "the port does not use TLS; a URL with http:// may be right",
        ),
    ],
)
def test_the_reason_of_a_system_error_has_no_number(error: Exception, reason: str) -> None:
    assert system_reason(error) == reason


def test_weights_in_use_by_several_models_name_the_command_for_each() -> None:
    refused = weights_in_use("version", ["the model a", "the model b", "a download"])
    assert refused.cause == "version is in use by the model a, the model b and a download."
    commands = "`xinference terminate a`, `xinference terminate b`"
    assert refused.hint == f"First terminate the models ({commands}) and cancel the download."
