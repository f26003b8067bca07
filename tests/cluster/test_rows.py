"""Rows of a cluster that are damaged, and the others beside them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from xinference.cluster.rows import ClusterRows
from xinference.store.database import Store

DEEP = '{"a":' * 5000


def _with(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


@pytest.mark.parametrize("labels", ["", "[1", DEEP, "null", "[]"])
def test_a_node_whose_labels_are_damaged_has_none(tmp_path: Path, labels: str) -> None:
    with closing(Store(tmp_path / "x.db")) as store:
        _with(tmp_path / "x.db", "INSERT INTO cluster_nodes VALUES ('n', 'one', 'hash', ?, 0, 1.0, NULL)", labels)
        assert [(row.node_id, dict(row.labels)) for row in ClusterRows(store).nodes()] == [("n", {})]


@pytest.mark.parametrize("value", ["[1", DEEP, "{}", "[1]"])
def test_a_damaged_list_of_nodes_that_have_left_is_empty(tmp_path: Path, value: str) -> None:
    with closing(Store(tmp_path / "x.db")) as store:
        _with(tmp_path / "x.db", "INSERT INTO cluster_values VALUES ('given_back', ?)", value)
        assert ClusterRows(store).given_back() == []


@pytest.mark.parametrize("value", ["", "-1", "x", "1e9", "999999999999999", "9" * 30, "A" * 5_000_000])
def test_each_server_after_a_damaged_epoch_counts_further_than_the_one_before(tmp_path: Path, value: str) -> None:
    with closing(Store(tmp_path / "x.db")) as store:
        _with(tmp_path / "x.db", "INSERT INTO cluster_values VALUES ('epoch', ?)", value)
        epochs = [ClusterRows(store).next_epoch() for _ in range(3)]
        assert epochs == sorted(set(epochs)) and epochs[0] > 1_700_000_000
