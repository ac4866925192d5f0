"""`VARIABLES`: the one place a setting is declared in; parsing, help and documentation derive from it."""

from __future__ import annotations

from typing import Final

from aero_l2 import __version__
from aero_l2.config import access, values
from aero_l2.config.network_variables import NETWORK_THEMES
from aero_l2.config.observe_variables import OBSERVE_THEME
from aero_l2.config.tunnel_variables import TUNNEL_THEME
from aero_l2.config.values import Number
from aero_l2.config.variable import NO_LIMIT, THE_DEFAULT, Theme, Variable

_MANY: Final = 1_000_000
_DAY_MS: Final = 86_400_000

_limit = Number(0, _MANY, NO_LIMIT)

THEMES: Final[tuple[Theme, ...]] = (
    Theme("Listening", (
        Variable(
            "listen", "AERO_L2_PROXY_LISTEN_ADDR", "0.0.0.0:8090", values.listen_address,
            "Where to listen; port 0 picks one. `--bind` wins over it.", "host:port",
            deprecated=("AERO_L2_PROXY_BIND_ADDR",),
        ),
    )),
    Theme("Authentication", (
        Variable(
            "auth_mode", "AERO_L2_AUTH_MODE", "", access.auth_mode,
            "Who may open a tunnel: none, session, token, jwt, cookie_or_jwt, session_or_token, "
            "session_and_token. Unset, the secrets decide.", reloadable=True,
        ),
        Variable(
            "session_secrets", "AERO_L2_SESSION_SECRET", "", values.text,
            "Signs the `aero_session` cookie; shared with the gateway that issues it.",
            ahead=("AERO_GATEWAY_SESSION_SECRET", "SESSION_SECRET"), secret=True, reloadable=True,
        ),
        Variable(
            "api_keys", "AERO_L2_API_KEY", "", values.text,
            "The static API key.", behind=("AERO_L2_TOKEN",), secret=True, reloadable=True,
        ),
        Variable(
            "jwt_secrets", "AERO_L2_JWT_SECRET", "", values.text,
            "Signs JWTs (HS256).", secret=True, reloadable=True,
        ),
        Variable(
            "jwt_audience", "AERO_L2_JWT_AUDIENCE", "", values.optional_text,
            "What the `aud` claim of a JWT has to be; unset, it is not looked at.", reloadable=True,
        ),
        Variable(
            "jwt_issuer", "AERO_L2_JWT_ISSUER", "", values.optional_text,
            "What the `iss` claim of a JWT has to be; unset, it is not looked at.", reloadable=True,
        ),
        Variable(
            "close_on_expiry", "AERO_L2_CLOSE_ON_EXPIRY", "0", values.boolean,
            "A tunnel is closed (1008 `session expired`) when the credential it was opened with expires.",
            reloadable=True,
        ),
        Variable(
            "insecure_allow_no_auth", "AERO_L2_INSECURE_ALLOW_NO_AUTH", "0", values.exactly_one,
            "Exactly 1, and AERO_L2_OPEN too: without a mode and a secret, anyone may open a tunnel.",
            reloadable=True,
        ),
    )),
    Theme("Issuing sessions", (
        Variable(
            "session_endpoint", "AERO_L2_SESSION_ENDPOINT", "0", values.boolean,
            "`POST /session` issues the `aero_session` cookie, for a deployment without a gateway. Needs a "
            "mode that takes cookies, and AERO_L2_MAX_CONNECTIONS_PER_IP, since anyone can get an id there.",
            reloadable=True,
        ),
        Variable(
            "session_ttl_secs", "AERO_L2_SESSION_TTL_SECS", "3600", Number(60, 2_592_000),
            "How long a cookie issued there is good for.", "s", reloadable=True,
        ),
        Variable(
            "sessions_per_minute_per_ip", "AERO_L2_MAX_SESSIONS_PER_MINUTE_PER_IP", "30", Number(1, 6000),
            "Cookies issued to a client address in a minute.", reloadable=True,
        ),
    )),
    Theme("Origin, Host and proxies in front", (
        Variable(
            "allowed_origins", "AERO_L2_ALLOWED_ORIGINS", "", access.origins,
            "Pages that may open tunnels, by their Origin; `*` = any valid one, whatever else is listed. "
            "Unset: the Origin's host and port have to be those of the request.",
            behind=("ALLOWED_ORIGINS",), reloadable=True, listed=True,
        ),
        Variable(
            "allowed_origins_extra", "AERO_L2_ALLOWED_ORIGINS_EXTRA", "", access.origins,
            "Origins on top of those. Set alone it ends the rule of the same host too: list the proxy's own "
            "origin as well.", reloadable=True, listed=True,
        ),
        Variable(
            "open", "AERO_L2_OPEN", "0", values.exactly_one,
            "Exactly 1: the Origin of a request is not checked. Credentials still are.", reloadable=True,
        ),
        Variable(
            "allowed_hosts", "AERO_L2_ALLOWED_HOSTS", "", access.hosts,
            "Names, with port where it is not the scheme's, under which it may be reached; unset: any.",
            reloadable=True, listed=True,
        ),
        Variable(
            "trust_proxy", "AERO_L2_TRUST_PROXY", "0", values.boolean,
            "`Forwarded` and `X-Forwarded-For` name the client.", reloadable=True,
        ),
        Variable(
            "trust_proxy_host", "AERO_L2_TRUST_PROXY_HOST", "0", values.boolean,
            "`Forwarded`, `X-Forwarded-Host` and `X-Forwarded-Proto` name the host and the scheme.",
            reloadable=True,
        ),
        Variable(
            "trusted_proxies", "AERO_L2_TRUSTED_PROXIES", "", access.proxies,
            "Prefixes or addresses from which alone these headers count; the client is then the rightmost "
            "address that is not one of them. Turns AERO_L2_TRUST_PROXY on.", reloadable=True, listed=True,
        ),
    )),
    Theme("Limits at the door", (
        Variable(
            "max_connections", "AERO_L2_MAX_CONNECTIONS", "64", _limit,
            "Tunnels of the process.", reloadable=True,
        ),
        Variable(
            "max_connections_per_session", "AERO_L2_MAX_CONNECTIONS_PER_SESSION", "0", _limit,
            "Tunnels for each `sid` of cookie or JWT.",
            deprecated=("AERO_L2_MAX_TUNNELS_PER_SESSION",), reloadable=True,
        ),
        Variable(
            "max_connections_per_ip", "AERO_L2_MAX_CONNECTIONS_PER_IP", "0", _limit,
            "Tunnels for each client address; the addresses of an IPv6 /64 are one client.", reloadable=True,
        ),
        Variable(
            "upgrades_per_minute_per_ip", "AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP", "0", _limit,
            "Attempts to open a tunnel, for each client address in a minute.", reloadable=True,
        ),
        Variable(
            "max_setups", "AERO_L2_MAX_SETUPS", "4", _limit,
            "Tunnels that are set up at the same time; others wait for their turn, 20 seconds at most.",
            reloadable=True,
        ),
        Variable(
            "max_waiting_setups", "AERO_L2_MAX_WAITING_SETUPS", "256", _limit,
            "Tunnels that wait for it; one more is answered 503, of the client with the most of them.",
            reloadable=True,
        ),
        Variable(
            "max_loop_lag_ms", "AERO_L2_MAX_LOOP_LAG_MS", "500", Number(0, 60_000, NO_LIMIT),
            "While the server's event loop is later than this, upgrades are answered 503.", "ms",
            reloadable=True,
        ),
        Variable(
            "upgrade_timeout_ms", "AERO_L2_UPGRADE_TIMEOUT_MS", "10000", Number(100, 600_000),
            "A client that has not sent its whole request by then is hung up on.", "ms",
        ),
        Variable(
            "max_header_bytes", "AERO_L2_MAX_HEADER_BYTES", "16384", Number(1024, 65_536),
            "Longest head of a request.", "bytes",
        ),
    )),
    Theme("Messages and times", (
        Variable(
            "raw_frames", "AERO_L2_RAW_FRAMES", "0", values.boolean,
            "`/v86` and `/v86/<token>` are tunnels too, with one Ethernet frame a message, as the emulator "
            "v86 wants it for its `relay_url` (v86.md).", reloadable=True,
        ),
        Variable(
            "max_frame_payload", "AERO_L2_MAX_FRAME_PAYLOAD", "2048", Number(64, 65_535, THE_DEFAULT),
            "Largest Ethernet frame in a message; guests send up to 1514.", "bytes",
            deprecated=("AERO_L2_MAX_FRAME_SIZE",),
        ),
        Variable(
            "max_control_payload", "AERO_L2_MAX_CONTROL_PAYLOAD", "256", Number(8, 65_535, THE_DEFAULT),
            "Largest payload of every other message.", "bytes",
        ),
        Variable(
            "send_stall_timeout_ms", "AERO_L2_SEND_STALL_TIMEOUT_MS", "10000", Number(0, _DAY_MS, NO_LIMIT),
            "A client that takes nothing for so long while data waits is closed.", "ms", reloadable=True,
        ),
        Variable(
            "drain_ms", "AERO_L2_DRAIN_MS", "0", Number(0, _DAY_MS),
            "How long open tunnels live on after the signal to end, while new ones are refused.", "ms",
            reloadable=True,
        ),
        Variable(
            "shutdown_grace_ms", "AERO_L2_SHUTDOWN_GRACE_MS", "3000", Number(0, _DAY_MS),
            "How long the end then may wait for tunnels to close.", "ms", reloadable=True,
        ),
    )),
    TUNNEL_THEME,
    *NETWORK_THEMES,
    OBSERVE_THEME,
    Theme("Process", (
        Variable(
            "user", "AERO_L2_USER", "", values.optional_text,
            "The user to become when started by root: aero-l2 if unset. No effect otherwise.",
        ),
        Variable(
            "receive_path", "AERO_L2_RECEIVE_PATH", "own",
            lambda value: values.choice(value, "own", "library"),
            "own = the fast parser; library = websockets alone, for measurements.",
        ),
        Variable(
            "version", "AERO_L2_PROXY_VERSION", __version__, values.text,
            "What /version says as version.", behind=("VERSION",),
        ),
        Variable(
            "git_sha", "AERO_L2_PROXY_GIT_SHA", "dev", values.text,
            "What /version says as gitSha.", behind=("GIT_SHA",),
        ),
        Variable(
            "built_at", "AERO_L2_PROXY_BUILD_TIMESTAMP", "", values.text,
            "What /version says as builtAt.", behind=("BUILD_TIMESTAMP",),
        ),
    )),
)  # fmt: skip

VARIABLES: Final[tuple[Variable, ...]] = tuple(variable for theme in THEMES for variable in theme.variables)
