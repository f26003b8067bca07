"""Writes the boards for Grafana: python monitoring/boards.py

Each board is a list of rows; a row is a list of panels. A test runs every query against a real scrape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana"
WIDTH, HEIGHT = 24, 8
#: The range of rates, which Grafana sets to at least four intervals of the scrape.
RATE = "[$__rate_interval]"
HERE = 'instance=~"$instance"'
MODEL = f'{HERE},model=~"$model"'


@dataclass(frozen=True)
class Panel:
    """One panel: its title, its unit, and its queries by their legends."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    text: str = ""
    stacked: bool = False


@dataclass(frozen=True)
class Board:
    """One board."""

    uid: str
    title: str
    text: str
    has_model: bool
    rows: tuple[tuple[Panel, ...], ...]


def rate(name: str, labels: str, by: str) -> str:
    """The rate of a counter, summed by labels."""
    return f"sum by ({by}) (rate({name}{{{labels}}}{RATE}))"


def quantile(share: float, name: str, labels: str, by: str = "model") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({name}_bucket{{{labels}}}{RATE})))"


def ratio(above: str, below: str) -> str:
    """A share, without a value while there is nothing to divide by."""
    return f"{above} / ({below} > 0)"


_ALL = rate("xinference_requests_total", MODEL, "model")
#: 0 and not nothing while no request fails.
ERRORS = ratio(f'(sum by (model) (rate(xinference_requests_total{{{MODEL},status=~"5.."}}{RATE})) or 0 * {_ALL})', _ALL)

OVERVIEW = Board(
    "xinference-overview",
    "Xinference: overview",
    "What the server does now: models, requests, tokens and errors.",
    False,
    (
        (
            Panel("Models ready", "none", {"": f'sum(xinference_model_state{{{HERE},state="ready"}})'}, "stat"),
            Panel("Replicas that answer", "none", {"": f"sum(xinference_replica_up{{{HERE}}})"}, "stat"),
            Panel("Requests in flight", "none", {"": f"sum(xinference_requests_in_flight{{{HERE}}})"}, "stat"),
            Panel(
                "Output tokens a second",
                "none",
                {"": f"sum(rate(xinference_output_tokens_total{{{HERE}}}{RATE}))"},
                "stat",
            ),
        ),
        (
            Panel(
                "Requests a second",
                "reqps",
                {"{{status}}": rate("xinference_requests_total", HERE, "status")},
                stacked=True,
            ),
            Panel(
                "Tokens a second",
                "none",
                {
                    "prompt": f"sum(rate(xinference_prompt_tokens_total{{{HERE}}}{RATE}))",
                    "of them cached": f"sum(rate(xinference_cached_prompt_tokens_total{{{HERE}}}{RATE}))",
                    "output": f"sum(rate(xinference_output_tokens_total{{{HERE}}}{RATE}))",
                },
            ),
        ),
        (
            Panel(
                "Requests in flight and waiting",
                "none",
                {
                    "{{model}}": f"sum by (model) (xinference_requests_in_flight{{{HERE}}})",
                    "{{model}} waits for {{for}}": f"xinference_requests_waiting{{{HERE}}}",
                },
                text="What waits has no place at an engine, or its model is being loaded.",
            ),
            Panel(
                "Time to the first token, 95th percentile",
                "s",
                {"{{model}}": quantile(0.95, "xinference_time_to_first_token_seconds", HERE)},
            ),
        ),
        (
            Panel(
                "Models",
                "none",
                {
                    "": f"xinference_model_info{{{HERE}}} * on (instance, model) group_left (state) "
                    f"xinference_model_state{{{HERE}}}"
                },
                "table",
            ),
            Panel(
                "Loads, unloads and restarts an hour",
                "none",
                {
                    "{{model}} loaded": f"increase(xinference_load_seconds_count{{{HERE}}}[1h])",
                    "{{model}} unloaded: {{reason}}": f"increase(xinference_unloads_total{{{HERE}}}[1h])",
                    "{{model}} restarted": f"increase(xinference_replica_restarts_total{{{HERE}}}[1h])",
                },
            ),
        ),
        (
            Panel(
                "Gateway processes", "none", {"{{state}}": f"sum by (state) (xinference_gateway_processes{{{HERE}}})"}
            ),
            Panel("Memory of the server", "bytes", {"{{instance}}": f"process_resident_memory_bytes{{{HERE}}}"}),
            Panel(
                "Processor time of the server",
                "percentunit",
                {"{{instance}}": f"rate(process_cpu_seconds_total{{{HERE}}}{RATE})"},
            ),
        ),
    ),
)

ENGINE = "xinference_engine"
MODEL_BOARD = Board(
    "xinference-model",
    "Xinference: model",
    "How fast one model answers, and why.",
    True,
    (
        (
            Panel("Errors", "percentunit", {"{{model}}": ERRORS}, "stat"),
            Panel(
                "First token, median",
                "s",
                {"{{model}}": quantile(0.5, "xinference_time_to_first_token_seconds", MODEL)},
                "stat",
            ),
            Panel(
                "Tokens a second of one stream, median",
                "none",
                {"{{model}}": f"1 / {quantile(0.5, 'xinference_time_per_output_token_seconds', MODEL)}"},
                "stat",
            ),
            Panel(
                "Load, median",
                "s",
                {
                    "{{model}}": "histogram_quantile(0.5, sum by (model, le) "
                    f"(xinference_load_seconds_bucket{{{MODEL}}}))"
                },
                "stat",
            ),
        ),
        (
            Panel(
                "Time to the first token",
                "s",
                {
                    f"{{{{model}}}} p{int(share * 100)}": quantile(
                        share, "xinference_time_to_first_token_seconds", MODEL
                    )
                    for share in (0.5, 0.95, 0.99)
                },
            ),
            Panel(
                "Time per output token",
                "s",
                {
                    f"{{{{model}}}} p{int(share * 100)}": quantile(
                        share, "xinference_time_per_output_token_seconds", MODEL
                    )
                    for share in (0.5, 0.95)
                },
            ),
        ),
        (
            Panel(
                "Duration of requests, 95th percentile",
                "s",
                {
                    "{{model}} {{path}} stream={{stream}}": quantile(
                        0.95, "xinference_request_seconds", MODEL, "model, path, stream"
                    )
                },
            ),
            Panel(
                "Waits, 95th percentile",
                "s",
                {"{{model}} for {{for}}": quantile(0.95, "xinference_wait_seconds", MODEL, "model, for")},
                text="For the load of the model, its restart, a place at an engine, or the check of limits.",
            ),
        ),
        (
            Panel(
                "Requests a second by status",
                "reqps",
                {"{{status}}": rate("xinference_requests_total", MODEL, "status")},
                stacked=True,
            ),
            Panel(
                "Tokens a second",
                "none",
                {
                    "{{model}} prompt": rate("xinference_prompt_tokens_total", MODEL, "model"),
                    "{{model}} output": rate("xinference_output_tokens_total", MODEL, "model"),
                },
            ),
        ),
        (
            Panel(
                "Requests by replica",
                "reqps",
                {"{{model}} {{replica}}": rate("xinference_replica_requests_total", MODEL, "model, replica")},
            ),
            Panel(
                "Choice of the replica",
                "reqps",
                {"{{model}} {{result}}": rate("xinference_affinity_total", MODEL, "model, result")},
                text="known: the replica has computed the prompt's beginning; balanced: that one was too busy.",
            ),
        ),
        (
            Panel(
                "In the engine",
                "none",
                {
                    "{{model}} {{replica}} running": f"{ENGINE}_running{{{MODEL}}}",
                    "{{model}} {{replica}} waiting": f"{ENGINE}_waiting{{{MODEL}}}",
                },
            ),
            Panel("KV cache", "percentunit", {"{{model}} {{replica}}": f"{ENGINE}_kv_cache_ratio{{{MODEL}}}"}),
            Panel(
                "Prefix cache hits",
                "percentunit",
                {
                    "{{model}}": ratio(
                        rate(f"{ENGINE}_prefix_hits_total", MODEL, "model"),
                        rate(f"{ENGINE}_prefix_queries_total", MODEL, "model"),
                    )
                },
            ),
            Panel(
                "Preemptions",
                "cps",
                {"{{model}} {{replica}}": rate(f"{ENGINE}_preemptions_total", MODEL, "model, replica")},
                text="vLLM and SGLang only.",
            ),
        ),
        (
            Panel(
                "Memory of each replica",
                "bytes",
                {"{{model}} {{replica}} {{kind}}": f"xinference_replica_memory_bytes{{{MODEL}}}"},
            ),
        ),
    ),
)

DEVICES = Board(
    "xinference-devices",
    "Xinference: devices",
    "Memory, GPUs and disks: what is used, what is planned.",
    False,
    (
        (
            Panel(
                "Memory of the host",
                "bytes",
                {"{{kind}}": f'sum by (kind) (xinference_memory_bytes{{{HERE},device="host"}})'},
                text="planned: for models; measured: of their processes.",
            ),
            Panel(
                "Memory of each replica",
                "bytes",
                {"{{model}} {{replica}} {{kind}}": f"xinference_replica_memory_bytes{{{HERE}}}"},
            ),
        ),
        (
            Panel(
                "Memory of each GPU",
                "bytes",
                {
                    "{{name}} {{index}} {{kind}}": (
                        f'xinference_memory_bytes{{{HERE},device!="host"}} * on (instance, device) '
                        f"group_left (name, index) xinference_device_info{{{HERE}}}"
                    )
                },
            ),
            Panel(
                "Load of each GPU",
                "percentunit",
                {"{{device}}": f"xinference_device_utilization_ratio{{{HERE}}}"},
            ),
        ),
        (
            Panel("Temperature", "celsius", {"{{device}}": f"xinference_device_temperature_celsius{{{HERE}}}"}),
            Panel("Power", "watt", {"{{device}}": f"xinference_device_power_watts{{{HERE}}}"}),
        ),
        (
            Panel(
                "Free space of the disks",
                "percentunit",
                {
                    "{{path}}": (
                        f'xinference_disk_bytes{{{HERE},kind="free"}} / on (instance, path) '
                        f'xinference_disk_bytes{{{HERE},kind="total"}}'
                    )
                },
            ),
            Panel(
                "Downloads",
                "Bps",
                {"{{hub}}": rate("xinference_download_bytes_total", HERE, "hub")},
            ),
        ),
    ),
)

BOARDS = {"overview": OVERVIEW, "model": MODEL_BOARD, "devices": DEVICES}
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


def write() -> None:
    """Write all boards."""
    FOLDER.mkdir(exist_ok=True)
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(as_json(board), indent=2) + "\n")


if __name__ == "__main__":
    write()
