"""Makes the document of a board that Grafana reads."""

from __future__ import annotations

from typing import Any

from monitoring.boards.panels import Board, Panel

WIDTH, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variables(board: Board) -> list[dict[str, Any]]:
    """The choices at the top of a board."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return [
        source,
        _choice("instance", "label_values(xinference_info, instance)"),
        *(
            [_choice("model", 'label_values(xinference_model_info{instance=~"$instance"}, model)')]
            if board.has_model
            else []
        ),
    ]


def _choice(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if panel.stacked else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend or "__auto",
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for n, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def as_json(board: Board) -> dict[str, Any]:
    """A board in Grafana's form."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        height = 4 if all(panel.kind == "stat" for panel in row) else HEIGHT
        width = WIDTH // len(row)
        for n, panel in enumerate(row):
            place = {"x": n * width, "y": top, "w": width, "h": height}
            panels.append(_panel(len(panels) + 1, panel, place))
        top += height
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.text,
        "tags": ["xinference"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables(board)},
        "panels": panels,
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Xinference", "tags": ["xinference"], "asDropdown": False}],
    }
