"""`aero-l2 token`: keys, and tokens that a proxy with the same settings accepts.

Secrets come from where the proxy has them, or from a file, never from the command line, where every user of
the machine could read them.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import Annotated, Final, NoReturn

import typer

from aero_l2.auth.jwt import JwtClaims, mint_jwt
from aero_l2.auth.keys import RANDOM_KEY_BYTES, random_key
from aero_l2.auth.session_token import SessionClaims, mint_session_token
from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.config.load import about_names
from aero_l2.config.names import BY_NAME, FILE
from aero_l2.config.secrets import SecretFault, read_secret
from aero_l2.config.sources import Sources, gather
from aero_l2.config.values import BadValue, Number
from aero_l2.errors import ConfigError
from aero_l2.web.origin import InvalidOrigin, normalize_origin

SESSION_SECRET: Final = "AERO_L2_SESSION_SECRET"
JWT_SECRET: Final = "AERO_L2_JWT_SECRET"
_TEN_YEARS_S: Final = 315_360_000
_SID_BYTES: Final = 16

app = typer.Typer(help="Make keys, and tokens that the proxy accepts.", no_args_is_help=True)

Sid = Annotated[str, typer.Option(metavar="ID", help="Whose session; random if not given.")]
Ttl = Annotated[str, typer.Option(metavar="SECONDS", help="How long the token is good.")]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="The proxy's TOML file, if it has one.")]
SecretFile = Annotated[
    str, typer.Option(metavar="FILE", help="A file with the secret, instead of what the proxy would use.")
]


@app.command()
def session(sid: Sid = "", ttl: Ttl = "3600", secret_file: SecretFile = "", config: Config = None) -> None:
    """Print a session token: the value of an `aero_session` cookie.

    The secret is the proxy's, from AERO_GATEWAY_SESSION_SECRET, SESSION_SECRET or AERO_L2_SESSION_SECRET,
    or from the file named by one of these with _FILE behind it.
    """
    expires = int(time.time()) + _number("--ttl", ttl, Number(1, _TEN_YEARS_S))
    key = _key(SESSION_SECRET, _sources(config), secret_file)
    try:
        typer.echo(mint_session_token(SessionClaims(_sid(sid), expires), key))
    except ValueError as error:
        _fail(f"--sid does not fit a token ({error}): give a shorter one")


@app.command()
def jwt(
    sid: Sid = "",
    ttl: Ttl = "3600",
    origin: Annotated[
        str, typer.Option(metavar="ORIGIN", help="The only page that may use it, as https://example.org.")
    ] = "",
    audience: Annotated[
        str, typer.Option(metavar="NAME", help="aud; AERO_L2_JWT_AUDIENCE if not given.")
    ] = "",
    issuer: Annotated[str, typer.Option(metavar="NAME", help="iss; AERO_L2_JWT_ISSUER if not given.")] = "",
    nbf: Annotated[str, typer.Option(metavar="SECONDS", help="From when on it is good, from now.")] = "",
    secret_file: SecretFile = "",
    config: Config = None,
) -> None:
    """Print a JWT.

    The secret is the proxy's, from AERO_L2_JWT_SECRET or the file that AERO_L2_JWT_SECRET_FILE names.
    """
    now = int(time.time())
    lifetime = _number("--ttl", ttl, Number(1, _TEN_YEARS_S))
    delay = _number("--nbf", nbf, Number(0, lifetime - 1)) if nbf.strip() else None
    sources = _sources(config)
    key = _key(JWT_SECRET, sources, secret_file)
    try:
        claims = JwtClaims(
            iat=now,
            exp=now + lifetime,
            sid=_sid(sid),
            origin=_origin(origin),
            aud=audience.strip() or _setting("AERO_L2_JWT_AUDIENCE", sources),
            iss=issuer.strip() or _setting("AERO_L2_JWT_ISSUER", sources),
            nbf=None if delay is None else now + delay,
        )
        typer.echo(mint_jwt(claims, key))
    except ValueError as error:
        _fail(f"--sid, --origin, --audience or --issuer does not fit a token ({error}): give shorter ones")


@app.command()
def key(
    length: Annotated[
        str, typer.Option("--bytes", metavar="COUNT", help="How many random bytes are in it.")
    ] = str(RANDOM_KEY_BYTES),
) -> None:
    """Print a new random key, good for every secret and as an API key."""
    typer.echo(random_key(_number("--bytes", length, Number(16, 1024))))


def _number(option: str, text: str, numbers: Number) -> int:
    try:
        return numbers(text.strip())
    except BadValue as fault:
        _fail(f"{option}={text!r} {fault}: {fault.fix}")


def _sid(text: str) -> str:
    return text.strip() or secrets.token_urlsafe(_SID_BYTES)


def _origin(text: str) -> str | None:
    if not text.strip():
        return None
    try:
        return normalize_origin(text.strip())
    except InvalidOrigin as fault:
        _fail(f"--origin={text!r} is no Origin ({fault}): write SCHEME://HOST[:PORT]")


def _sources(config: str | None) -> Sources:
    """Where the proxy's settings come from. Every name is judged, of the values those a token needs."""
    try:
        sources = gather(os.environ, config)
    except ConfigError as error:
        _fail(*error.faults)
    complain(*(f"warning: {warning}" for warning in about_names(sources)))
    if sources.config_faults:
        _fail(*sources.config_faults)
    return sources


def _setting(name: str, sources: Sources) -> str | None:
    return next((given.value for given in sources.given(name) if given.value), None)


def _key(name: str, sources: Sources, secret_file: str) -> bytes:
    """The secret to sign with: of the file if there is one, else the proxy's."""
    path = secret_file.strip()
    if path:
        return _key_of_file(name, path)
    variable = BY_NAME[name]
    try:
        secret = read_secret(variable, sources).keys.current
    except SecretFault as fault:
        _fail(str(fault))
    if secret is None:
        names = " or ".join(variable.names)
        _fail(
            f"there is no secret to sign with: set {names}, or one of them with {FILE}, or use --secret-file"
        )
    return secret


def _key_of_file(name: str, path: str) -> bytes:
    sources = gather({name + FILE: path})
    for problem, fix in sources.unreadable.values():
        shown = "…" if sources.hidden else repr(path)
        _fail(f"--secret-file={shown} {problem}: {fix}")
    (text,) = sources.files.values()
    return text.encode()


def _fail(*faults: str) -> NoReturn:
    complain(*faults)
    raise typer.Exit(EXIT_USAGE)
