"""aero-l2: a LAN with DHCP, DNS and NAT for virtual machines, over a WebSocket."""

from importlib.metadata import version

__version__ = version("aero-l2")
