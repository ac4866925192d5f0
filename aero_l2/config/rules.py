"""Settings judged together: what one demands of another, and what one decides for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aero_l2.auth.modes import AuthMode, Secret
from aero_l2.config import notes
from aero_l2.config.forwards import MAX_FORWARDS
from aero_l2.config.given import Given
from aero_l2.wire.tunnel import RESUME_SECRET_BYTES

_COOKIE_MODES: Final = frozenset(mode for mode in AuthMode if "session" in mode.needs)
_SECRET_FIELDS: Final[dict[Secret, str]] = {
    "session": "session_secrets",
    "api_key": "api_keys",
    "jwt": "jwt_secrets",
}
_READ_WITH: Final[dict[str, Secret]] = {
    **{field: secret for secret, field in _SECRET_FIELDS.items()},
    "jwt_audience": "jwt",
    "jwt_issuer": "jwt",
}
_HOW_TO_SET: Final = {
    "session": "a session secret (AERO_L2_SESSION_SECRET, SESSION_SECRET or AERO_GATEWAY_SESSION_SECRET)",
    "api_key": "an API key (AERO_L2_API_KEY)",
    "jwt": "AERO_L2_JWT_SECRET",
}


@dataclass(slots=True)
class Judged:
    """Fields of `Settings` as they apply, and lines about them."""

    fields: dict[str, Any]
    faults: list[str]
    warnings: list[str]


def judge(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Judged:
    """Judge what was parsed; a field that is missing had a fault of its own, and no other follows from it."""
    judged = Judged(dict(fields), [], [])
    _merge_origins(judged.fields)
    _imply_trust(judged.fields, given)
    _leave_ports_to_the_allow_list(judged.fields, given)
    _part_metrics_from_tunnels(judged, given)
    _limit_forwards(judged)
    _leave_room_for_secrets(judged)
    _choose_mode(judged, given)
    _guard_session_endpoint(judged, given)
    judged.warnings += notes.about(judged.fields, given)
    return judged


def _merge_origins(fields: dict[str, Any]) -> None:
    extra = fields.pop("allowed_origins_extra", ())
    if "allowed_origins" in fields:
        fields["allowed_origins"] = tuple(dict.fromkeys((*fields["allowed_origins"], *extra)))


def _imply_trust(fields: dict[str, Any], given: Mapping[str, Given]) -> None:
    """Whoever names the proxies means to trust them, unless they say otherwise."""
    if fields.get("trusted_proxies") and "trust_proxy" not in given:
        fields["trust_proxy"] = True


def _leave_ports_to_the_allow_list(fields: dict[str, Any], given: Mapping[str, Given]) -> None:
    """The default of denied TCP ports is for those who list none that are allowed."""
    if "allowed_tcp_ports" in given and "denied_tcp_ports" not in given:
        fields["denied_tcp_ports"] = ()


def _part_metrics_from_tunnels(judged: Judged, given: Mapping[str, Given]) -> None:
    """One port of one address is listened on once."""
    metrics, listen = judged.fields.get("metrics_listen"), judged.fields.get("listen")
    if metrics is not None and metrics == listen and metrics.port:
        judged.faults.append(
            given["metrics_listen"].fault("is where tunnels are served", "choose another port or unset it")
        )


def _limit_forwards(judged: Judged) -> None:
    """Both protocols share the limit, so neither variable can be judged by itself."""
    count = len(judged.fields.get("tcp_forward", ())) + len(judged.fields.get("udp_forward", ()))
    if count > MAX_FORWARDS:
        judged.faults.append(
            f"AERO_L2_TCP_FORWARD and AERO_L2_UDP_FORWARD have {count} entries: "
            f"keep to {MAX_FORWARDS} together"
        )


def _leave_room_for_secrets(judged: Judged) -> None:
    """A client keeps to the same limit, and would refuse the secret to come back with."""
    limit = judged.fields.get("max_control_payload")
    if judged.fields.get("resume_seconds") and limit is not None and limit < RESUME_SECRET_BYTES:
        judged.faults.append(
            f"AERO_L2_RESUME_SECONDS needs AERO_L2_MAX_CONTROL_PAYLOAD to be {RESUME_SECRET_BYTES} or more: "
            f"it is {limit}"
        )


def _choose_mode(judged: Judged, given: Mapping[str, Given]) -> None:
    fields = judged.fields
    secrets = {secret: fields.get(field) for secret, field in _SECRET_FIELDS.items()}
    if "auth_mode" not in fields:
        return
    mode: AuthMode | None = fields["auth_mode"]
    if mode is None and None not in (secrets["session"], secrets["api_key"]):
        mode = fields["auth_mode"] = _default_mode(judged, given)
    if mode is None:
        return
    for needed in mode.needs:
        if secrets[needed] is not None and not secrets[needed]:
            judged.faults.append(
                given["auth_mode"].fault(f"needs {_HOW_TO_SET[needed]}", "set it, or name its file in …_FILE")
            )
    for field, secret in _READ_WITH.items():
        if field in given and not _is_read(secret, mode):
            judged.warnings.append(
                f"{given[field].subject} has no effect: AERO_L2_AUTH_MODE is {mode.value}"
                + ("" if "auth_mode" in given else ", because it is not set")
            )


def _default_mode(judged: Judged, given: Mapping[str, Given]) -> AuthMode | None:
    fields = judged.fields
    if fields["session_secrets"]:
        return AuthMode.SESSION_OR_TOKEN
    if fields["api_keys"]:
        return AuthMode.TOKEN
    if fields["open"] and fields["insecure_allow_no_auth"]:
        return AuthMode.NONE
    said = " and ".join(
        f"{name}={given[field].value!r}" if field in given else f"{name} unset"
        for field, name in notes.NO_AUTH_PAIR.items()
    )
    if fields.get("jwt_secrets"):
        judged.faults.append(
            "AERO_L2_AUTH_MODE is not set, and AERO_L2_JWT_SECRET alone does not choose one: "
            "set AERO_L2_AUTH_MODE=jwt"
        )
    else:
        judged.faults.append(
            f"AERO_L2_AUTH_MODE is not set, nor is a secret, so nobody could come in ({said}): set "
            "AERO_L2_API_KEY or AERO_L2_SESSION_SECRET (`aero-l2 token key` makes one), or, where only you "
            "can connect, both AERO_L2_OPEN and AERO_L2_INSECURE_ALLOW_NO_AUTH to exactly 1"
        )
    return None


def _is_read(secret: Secret, mode: AuthMode) -> bool:
    return secret in mode.needs or (secret == "api_key" and mode is AuthMode.SESSION_OR_TOKEN)


def _guard_session_endpoint(judged: Judged, given: Mapping[str, Given]) -> None:
    fields = judged.fields
    if not fields.get("session_endpoint"):
        return
    endpoint = given["session_endpoint"]
    if fields.get("max_connections_per_ip") == 0:
        judged.faults.append(
            endpoint.fault(
                "lets anyone have as many ids as they like, so tunnels have to be limited by address",
                "set AERO_L2_MAX_CONNECTIONS_PER_IP",
            )
        )
    mode = fields.get("auth_mode")
    if mode is not None and mode not in _COOKIE_MODES:
        judged.faults.append(
            endpoint.fault(
                f"issues cookies, and AERO_L2_AUTH_MODE {mode.value} takes none",
                "set a session secret and a mode that does, session for example",
            )
        )
