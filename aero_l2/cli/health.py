"""`python -I -m aero_l2.cli.health`: does the proxy of this environment live? For a container's HEALTHCHECK.

It asks /healthz where AERO_L2_PROXY_LISTEN_ADDR says that `serve` listens, and says in one line how it went.
Exit status 0: it lives; 1: it does not answer so; 2: the variable names no address that can be asked. No
command of `aero-l2`, as it runs every few seconds and those take five times as long to load.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NoReturn

from aero_l2.config import VARIABLES, ListenAddress
from aero_l2.config.values import BadValue

TIMEOUT_S = 4.0


def address(environment: Mapping[str, str]) -> ListenAddress:
    """Where the proxy is found; one that listens on all addresses is asked on loopback.

    Raises BadValue: it is no address, or its port is not known beforehand.
    """
    listen = next(one for one in VARIABLES if one.field == "listen")
    given = (environment.get(name, "").strip() for name in listen.names)
    host, port = listen.parse(next(filter(None, given), listen.default))
    if not port:
        raise BadValue("has no port that could be asked", "name one")
    if host != "localhost" and (found := ip_address(host)).is_unspecified:
        host = "::1" if found.version == 6 else "127.0.0.1"
    return ListenAddress(host, port)


def ask(host: str, port: int) -> str:
    """Empty if it lives, else what is wrong."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if status == 200 else f"status {status}"


def main() -> NoReturn:
    """Entry point."""
    try:
        host, port = address(os.environ)
    except BadValue as fault:
        print(f"aero-l2: AERO_L2_PROXY_LISTEN_ADDR {fault}: {fault.fix}", file=sys.stderr)
        sys.exit(2)
    wrong = ask(host, port)
    print(f"/healthz of {host} port {port}: {wrong or 'ok'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
