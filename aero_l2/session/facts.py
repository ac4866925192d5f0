"""What an operator may know of a tunnel: the fields of the admin socket's answers (docs/admin.md)."""

from __future__ import annotations

from aero_l2.session.lan import Lan
from aero_l2.session.lifecycle import Lifecycle
from aero_l2.session.link import Link
from aero_l2.session.record import Record
from aero_l2.session.registry import Holder
from aero_l2.session.spending import Spending
from aero_l2.web.echo import echo


def facts(
    life: Lifecycle,
    record: Record,
    holder: Holder,
    framing: str,
    lan: Lan,
    spending: Spending,
    link: Link | None,
    now: float,
) -> dict[str, object]:
    """Of one tunnel, ready for JSON; costs some 10 µs. link: None before there is one. now: monotonic.

    What strangers chose (`principal`, `client`) is printable ASCII.
    """
    traffic, counts = lan.pump.traffic, lan.segment.counts()
    reading, capture = counts.reading, lan.capture.running
    return {
        "id": record.session_id,
        "principal": None if holder.principal is None else echo(holder.principal),
        "client": echo(holder.client),
        "peer": echo(record.peer),
        "framing": framing,
        "state": life.phase.value,
        "opened_at": None if record.opened_at is None else round(record.opened_at, 3),
        "age_s": None if record.opened_at is None else round(now - life.opened_at, 3),
        "resumes": record.resumes,
        "frames_rx": traffic.frames_rx,
        "bytes_rx": traffic.bytes_rx,
        "frames_tx": traffic.frames_tx,
        "bytes_tx": traffic.bytes_tx,
        "frames_dropped": traffic.frames_dropped,
        "packets_dropped": reading.dropped,
        "tcp_flows": counts.tcp_flows,
        "udp_flows": counts.udp_flows,
        "denied": reading.denied,
        "udp_flows_refused": reading.udp_flows_refused,
        "connects_failed": reading.connects_failed,
        "datagrams_failed": reading.datagrams_failed,
        "dns_queries": counts.dns_queries,
        "dns_failures": counts.dns_failures,
        "dns_denied": counts.dns_denied,
        "buffered_bytes": 0 if link is None else link.buffered(),
        "unacknowledged_bytes": 0 if link is None else link.outstanding(),
        "paused": lan.pump.is_paused,
        "rtt_ms": None if record.rtt_s is None else round(record.rtt_s * 1000, 3),
        "capture": None if capture is None else capture.path,
        "capture_bytes": None if capture is None else capture.size,
        **spending.used(),
    }
