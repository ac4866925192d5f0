"""Whether the host lets its users ping."""

import socket


def ping_permitted() -> bool:
    """Whether the NAT process may open ping sockets: sysctl net.ipv4.ping_group_range, icmp(7)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP):
            return True
    except OSError:
        return False
