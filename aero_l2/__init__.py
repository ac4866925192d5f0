"""aero-l2: a LAN with DHCP, DNS and NAT for virtual machines, over a WebSocket."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: what that takes to import would come ahead of `main`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aero-l2")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
