"""What `top` reads: the admin socket and /metrics, either of which may be missing."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from aero_l2.admin.client import AdminClient, NoAnswer
from aero_l2.web.echo import echo

MAX_METRICS: Final = 16 * 1024 * 1024
Samples = Mapping[str, Mapping[str, float]]
"""By the name of a sample (`l2_bytes_rx_total`, `…_bucket`) its value by its one label's, empty without."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look. at: monotonic seconds; wall: since 1970. What could not be read is None: see `missing`."""

    at: float
    wall: float
    status: Mapping[str, Any] | None = None
    sessions: tuple[Mapping[str, Any], ...] | None = None
    metrics: Samples | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing could be read at all."""
        return self.status is None and self.metrics is None


class Source:
    """Reads both, as far as they are known.

    socket: path of the admin socket. url: of /metrics; without one, where the admin socket says it is.
    timeout_s: for each.
    """

    def __init__(self, socket: str | None, url: str | None, timeout_s: float) -> None:
        self.socket = socket
        self.url = url
        self._timeout_s = timeout_s
        self._client = None if socket is None else AdminClient(socket, timeout_s)

    def read(self) -> Reading:
        """A look at both; never fails."""
        missing: dict[str, str] = {}
        at, wall = time.monotonic(), time.time()
        status, sessions = self._admin(missing)
        return Reading(at, wall, status, sessions, self._metrics(status, missing), missing)

    def ask(self, request: str) -> dict[str, Any]:
        """An answer of the admin socket. Raises NoAnswer."""
        if self._client is None:
            raise NoAnswer("no admin socket is known: give --socket, or the server's AERO_L2_ADMIN_SOCKET")
        return self._client.ask(request)

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    def _admin(
        self, missing: dict[str, str]
    ) -> tuple[Mapping[str, Any] | None, tuple[Mapping[str, Any], ...] | None]:
        try:
            status, answer = self.ask("status"), self.ask("sessions")
        except NoAnswer as fault:
            missing["socket"] = echo(str(fault))
            return None, None
        if not (status["ok"] and answer["ok"]):
            missing["socket"] = echo(f"{self.socket}: {status.get('error') or answer.get('error')}")
            return None, None
        sessions = answer.get("sessions")
        listed = sessions if isinstance(sessions, list) else []
        return status, tuple(one for one in listed if isinstance(one, dict) and "id" in one)

    def _metrics(self, status: Mapping[str, Any] | None, missing: dict[str, str]) -> Samples | None:
        url = self.url or (status or {}).get("metrics_url")
        if not isinstance(url, str):
            how = "give --url, http://127.0.0.1:8090/metrics for example"
            switched_off = "the server has none (AERO_L2_METRICS=off)" if status else how
            missing["metrics"] = switched_off
            return None
        try:
            return parse_metrics(fetch(url, self._timeout_s))
        except (OSError, http.client.HTTPException, ValueError, KeyError) as fault:
            reason = fault.reason if isinstance(fault, urllib.error.URLError) else fault
            missing["metrics"] = echo(f"{url}: {reason or type(fault).__name__}")
            return None


def fetch(url: str, timeout_s: float) -> str:
    """The text behind a URL, through no proxy. Raises OSError, ValueError, http.client.HTTPException."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("is no address of the web")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout_s) as response:
        data: bytes = response.read(MAX_METRICS + 1)
    if len(data) > MAX_METRICS:
        raise ValueError("the answer is too long")
    return data.decode("utf-8", "replace")


def parse_metrics(text: str) -> Samples:
    """The samples of Prometheus' text format. Raises ValueError."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = next(iter(sample.labels.values()), "")
            found.setdefault(sample.name, {})[label] = float(sample.value)
    return found
