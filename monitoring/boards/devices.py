"""The board of the devices."""

from __future__ import annotations

from monitoring.boards.panels import HERE, Board, Panel, rate

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
