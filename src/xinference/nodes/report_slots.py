"""When a node reports: in its slot of each interval, which it shares with some other nodes.

A supervisor that waits is woken for each report that arrives alone, and that costs more than the report. So nodes whose
clocks are set by NTP report in groups, each of a fortieth of all nodes. If clocks differ, reports arrive one by one.
"""

from __future__ import annotations

from zlib import crc32

#: Interval of the reports of a node's resources, in seconds; a node is READY while the last one is at most 5 s old.
REPORT_SECONDS = 2.0
#: The number of slots in an interval, and the duration of one in seconds.
SLOTS = 40
SLOT_SECONDS = REPORT_SECONDS / SLOTS


def seconds_to_report(node_id: str, clock: float) -> float:
    """Seconds until the next slot of a node begins, at most `REPORT_SECONDS` and half a slot.

    Args:
        clock: seconds since the epoch; within half a slot before the slot begins, the report counts as made.
    """
    wait = (crc32(node_id.encode()) % SLOTS * SLOT_SECONDS - clock) % REPORT_SECONDS
    return wait if wait > SLOT_SECONDS / 2 else wait + REPORT_SECONDS
