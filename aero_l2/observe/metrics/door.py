"""Metrics of the door: upgrades that were refused, and cookies."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from aero_l2.observe.metrics.declaring import Declarer

AUTH_REJECT_REASONS: Final = (
    "missing_credentials",
    "invalid_api_key",
    "invalid_cookie",
    "invalid_jwt",
    "jwt_origin_mismatch",
)


class DoorMetrics(Declarer):
    """Of who is not let in."""

    def _declare_door(self) -> None:
        counter = self._counter
        self.upgrade_rejected = counter(
            "l2_upgrade_rejected_total",
            "Upgrades refused with 401, 403 or 429; a 503 counts in aero_l2_upgrades_shed_total.",
        )
        self.upgrade_reject_origin_missing = self._reject("origin_missing", "the Origin is missing (403)")
        self.upgrade_reject_origin_not_allowed = self._reject(
            "origin_not_allowed", "the Origin is invalid or not allowed (403)"
        )
        self.upgrade_reject_host_missing = self._reject("host_missing", "the Host is missing (403)")
        self.upgrade_reject_host_invalid = self._reject("host_invalid", "the Host is malformed (403)")
        self.upgrade_reject_host_not_allowed = self._reject(
            "host_not_allowed", "the Host is not allowed (403)"
        )
        self.upgrade_reject_auth_missing = self._reject("auth_missing", "there is no credential (401)")
        self.upgrade_reject_auth_invalid = self._reject("auth_invalid", "the credential is not good (401)")
        self.upgrade_reject_max_connections = self._reject(
            "max_connections", "the limit of the process (429)"
        )
        self.upgrade_reject_max_connections_per_session = self._reject(
            "max_connections_per_session", "the limit per session principal (429)"
        )
        self.upgrade_reject_max_tunnels_per_session = self._reject(
            "max_tunnels_per_session", "the same under its other name"
        )
        self.upgrade_reject_rate_limited = self._reject(
            "rate_limited", "too many attempts of its address (429)"
        )
        self.upgrade_reject_quota_bytes = self._reject(
            "quota_bytes", "the principal has used up its hour (429)"
        )
        self.upgrade_ip_limit_exceeded = counter(
            "l2_upgrade_ip_limit_exceeded_total", "Upgrades refused for the limit per client address (429)."
        )
        self.auth_failures = counter("l2_auth_failures_total", "Upgrades refused with 401.")
        self.auth_reject = self._counters(
            "l2_auth_reject_total", "Upgrades refused with 401, by reason.", "reason", AUTH_REJECT_REASONS
        )
        self.session_connection_denied = counter(
            "l2_session_connection_denied_total", "Upgrades refused for the limit per session principal."
        )
        self.session_cookies_issued = counter(
            "l2_session_cookies_issued_total", "Cookies that POST /session issued."
        )
        self.session_cookies_refused = counter(
            "l2_session_cookies_refused_total", "Requests for a cookie that were refused."
        )

    def _reject(self, reason: str, text: str) -> Counter:
        return self._counter(f"l2_upgrade_reject_{reason}_total", f"Upgrades refused: {text}.")
