"""The figures of the documents that are constants of the code; those of settings are in docs/settings.md."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.cases import check_each
from xinference.api import login_delay
from xinference.control.watch import watch
from xinference.gateway import balancer, fair_queue, metrics, prefix_affinity
from xinference.gateway.http import connection_limits, reader_watch, uvicorn_protocol
from xinference.keys import sessions
from xinference.records import hub, rates
from xinference.store import launch_history, usage

ROOT = Path(__file__).parents[2]
KIB = 1024


def points() -> str:
    (fine, minutes), (medium, hours), (coarse, days) = ((width, width * count) for width, count in rates.RINGS.items())
    return (
        f"one for each {fine:g} s of the last {minutes / 60:g} minutes, for each {medium:g} s of the last "
        f"{hours / 3600:g} hours, and for each {coarse / 60:g} minutes of the last {days / 86_400:g} days"
    )


#: Page -> the sentence that has the figure. Spaces stand for any space.
SENTENCES = [
    ("README.md", f"list the last {launch_history.LAUNCHES_KEPT} launches"),
    ("docs/requests.md", f"The last {hub.RECORDS_KEPT:,} records are in memory"),
    ("docs/requests.md", f"stored in the home for {usage.KEPT_MINUTES // 1440} days"),
    ("docs/requests.md", f"model end {metrics.GONE_SECONDS / 60:g} minutes after the model is terminated"),
    ("docs/requests.md", points()),
    ("docs/recovery.md", f"until {metrics.GONE_SECONDS / 60:g} minutes after the model has ended"),
    ("docs/recovery.md", f"path and status | {usage.KEPT_MINUTES // 1440} days"),
    ("docs/keys.md", f"At most {fair_queue.MAX_PASSED} requests of a higher priority overtake"),
    ("docs/watch.md", f"sent after {watch.HEARTBEAT_SECONDS:g} s without an event"),
    ("docs/watch.md", f"at most {watch.MAX_FOLLOWERS} followers, and at most {watch.MAX_OF_KEY} with one key"),
    ("docs/replicas.md", f"it is skipped for {balancer.EXCLUDED_SECONDS:g} s"),
    ("docs/replicas.md", f"{balancer.BOUND:g} times the mean plus one"),
    ("docs/replicas.md", f"than {balancer.RECENT_BOUND:g} times the mean plus a few"),
    (
        "docs/replicas.md",
        f"Up to {prefix_affinity.EVEN_UP_TO:,} bytes, the positions are {prefix_affinity.STEP} bytes apart",
    ),
    ("docs/security.md", f"the request line and the headers | {uvicorn_protocol.MAX_HEAD // KIB} KiB, constant"),
    ("docs/security.md", f"| headers | {uvicorn_protocol.MAX_HEADERS}, constant"),
    ("docs/security.md", f"{connection_limits.MIN_SPEED:,} bytes per second, constant"),
    ("docs/security.md", f"{reader_watch.CONTENDED_SECONDS:g} s while other requests wait for the model"),
    ("docs/security.md", f"valid once, for {sessions.CODE_SECONDS:g} s"),
    (
        "docs/security.md",
        f"after {login_delay.FREE_FAILURES} within a minute, each further login of the address waits "
        f"{login_delay.WAIT_SECONDS:g} s",
    ),
]


def test_the_figures_of_the_documents_are_those_of_the_code() -> None:
    def check(case: tuple[str, str]) -> None:
        page, sentence = case
        assert sentence in re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))

    check_each(SENTENCES, check, lambda case: f"{case[0]}: {case[1]}")
