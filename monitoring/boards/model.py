"""The board of one model."""

from __future__ import annotations

from monitoring.boards.panels import ERRORS, MODEL, Board, Panel, quantile, rate, ratio

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
