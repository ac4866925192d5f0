"""HTTP requests by a port that a container engine has published."""

import http.client

from support import addresses as at
from support.ns import Namespace


def get(host: Namespace, port: int, path: str) -> tuple[int, str]:
    """One request from the engine's host, by its loopback: status and body; (0, why) while nobody answers."""
    connection = http.client.HTTPConnection(at.LOOPBACK, port, timeout=15)
    try:
        connection.sock = host.connect(at.LOOPBACK, port)
        connection.sock.settimeout(15)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
