"""Addresses, ports and contents of the test world: one place per fact.

The "internet" wears ordinary public addresses, because special-purpose prefixes (RFC 6890) are denied to
guests. None of them is ever reached: the namespaces have no way out of the machine.
"""

import hashlib
import zlib
from functools import cache

# The "internet" namespace.
WEB = "93.184.216.34"
CDN = "151.101.1.69"
NAMESERVER = "93.184.216.53"
PRIVATE_SITE = "10.1.2.3"  # stands for the operator's own network: routed, but denied to guests
METADATA = "169.254.169.254"
ROUTER = "45.33.32.1"

# The "host" namespace, where the proxy runs.
LOOPBACK = "127.0.0.1"
HOST_PUBLIC = "45.33.32.10"
HOST_PRIVATE = "192.168.77.10"

# A third namespace that only the host reaches.
OTHER = "192.168.77.20"

# A tunnel's own addresses.
GUEST = "10.0.2.15"
GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:55:0a:00:02:02"
NAT = "10.0.3.2"
NAT_DNS = "10.0.3.3"
NAT_SIDE = "10.0.3.100"

HTTP_PORT = 80
ECHO_PORT = 7
DISCARD_PORT = 9
TFTP_PORT = 69
SERVICE_PORT = 8088  # TCP and UDP echo on every address that a guest must not reach
LOCAL_HTTP_PORT = 8080  # HTTP on the host's loopback, the target of forwards

TRAILER = b"-- trailer after FIN --\n"
HELLO = b"hello from the test internet\n"
SECOND_STAGE = b"#!ipxe\necho AERO-CHECK the second stage came by name\n"
PAYLOAD_BYTES = 16 * 1024 * 1024
IMAGE_BYTES = 4 * 1024 * 1024


@cache
def payload() -> bytes:
    """The 16 MiB that /16MiB serves: the same bytes on every machine and every Python."""
    return hashlib.shake_256(b"aero-l2 test payload").digest(PAYLOAD_BYTES)


@cache
def payload_sha256() -> str:
    """Hex SHA-256 of ``payload()``."""
    return hashlib.sha256(payload()).hexdigest()


def image() -> bytes:
    """The 4 MiB that /4MiB serves, also by TFTP: the beginning of ``payload()``."""
    return payload()[:IMAGE_BYTES]


def image_crc32() -> str:
    """CRC-32 (ISO 3309) of ``image()``, as eight hex digits."""
    return f"{zlib.crc32(image()):08x}"


def image_sha256() -> str:
    """Hex SHA-256 of ``image()``."""
    return hashlib.sha256(image()).hexdigest()


def file(name: str) -> bytes | None:
    """What the internet serves by HTTP and by TFTP under this name; None where there is nothing."""
    if name in ("16MiB", "4MiB"):
        return payload() if name == "16MiB" else image()
    return {"hello": HELLO, "second.ipxe": SECOND_STAGE}.get(name)
