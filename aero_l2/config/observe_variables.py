"""The settings of what an operator sees, declared: a part of `aero_l2.config.variables.VARIABLES`."""

from __future__ import annotations

from typing import Final

from aero_l2.config import values
from aero_l2.config.values import Number
from aero_l2.config.variable import NO_LIMIT, Theme, Variable

_DAY_MS: Final = 86_400_000
_MANY: Final = 1_000_000
_MAX_BYTES: Final = 10**15

OBSERVE_THEME: Final = Theme("What an operator sees", (
    Variable(
        "log_level", "AERO_L2_LOG_LEVEL", "info",
        lambda value: values.choice(value, "debug", "info", "warning", "error"),
        "Least important lines to log: debug, info, warning, error.", reloadable=True,
    ),
    Variable(
        "log_format", "AERO_L2_LOG_FORMAT", "auto",
        lambda value: values.choice(value, "auto", "console", "json"),
        "auto = console on a terminal, json elsewhere.",
    ),
    Variable(
        "metrics_listen", "AERO_L2_METRICS_ADDR", "", values.optional_listen_address,
        "Where /metrics, /version and /readyz are served instead of at AERO_L2_PROXY_LISTEN_ADDR; /healthz "
        "is served at both.", "host:port",
    ),
    Variable(
        "metrics", "AERO_L2_METRICS", "on", lambda value: values.choice(value, "on", "off"),
        "off = nothing is counted, and /metrics is 404: for measurements.",
    ),
    Variable(
        "admin_socket", "AERO_L2_ADMIN_SOCKET", "", values.optional_socket_path,
        "Unix socket, mode 0600, for `aero-l2 top` and `aero-l2 admin` (docs/admin.md); an absolute path of "
        "at most 107 bytes. Unset: none.",
        "path",
    ),
    Variable(
        "audit_log", "AERO_L2_AUDIT_LOG", "", values.optional_text,
        "File of JSON lines about flows, refusals and tunnels (docs/audit.md), or `stdout`; unset: none.",
        "path",
    ),
    Variable(
        "audit_max_bytes", "AERO_L2_AUDIT_MAX_BYTES", "67108864", Number(0, _MAX_BYTES, NO_LIMIT),
        "A file of the audit log that would be larger is put aside as `.1`, and a new one begun.", "bytes",
    ),
    Variable(
        "audit_max_files", "AERO_L2_AUDIT_MAX_FILES", "10", Number(1, 1000),
        "Files of the audit log that are kept, the current one included.",
    ),
    Variable(
        "audit_dns", "AERO_L2_AUDIT_DNS", "0", values.boolean,
        "The audit log has a line for each DNS query of a guest, too.",
    ),
    Variable(
        "capture_dir", "AERO_L2_CAPTURE_DIR", "", values.optional_text,
        "Directory that gets a pcapng file of every tunnel, with all frames both ways (docs/captures.md); "
        "unset: none.", "path",
    ),
    Variable(
        "capture_on_demand", "AERO_L2_CAPTURE_ON_DEMAND", "0", values.boolean,
        "Only tunnels that an operator asks for are captured, instead of every one from its begin.",
    ),
    Variable(
        "capture_max_bytes", "AERO_L2_CAPTURE_MAX_BYTES", "67108864", Number(0, _MAX_BYTES, NO_LIMIT),
        "Largest file of a capture; frames that would exceed it are counted and left out.", "bytes",
    ),
    Variable(
        "capture_flush_interval_ms", "AERO_L2_CAPTURE_FLUSH_INTERVAL_MS", "1000",
        Number(0, _DAY_MS, "at its close"),
        "How long a captured frame may wait before it is in the file; where many wait, it is earlier.", "ms",
    ),
    Variable(
        "capture_max_files", "AERO_L2_CAPTURE_MAX_FILES", "0", Number(0, _MANY, NO_LIMIT),
        "Files kept in that directory: the newest; those of open tunnels count, and stay in any case.",
    ),
    Variable(
        "capture_snaplen", "AERO_L2_CAPTURE_SNAPLEN", "0", Number(0, 65_535, "whole frames"),
        "Bytes of a frame that are kept.", "bytes",
    ),
))  # fmt: skip
