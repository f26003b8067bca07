"""The board of the whole server."""

from __future__ import annotations

from monitoring.boards.panels import HERE, RATE, Board, Panel, quantile, rate

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
