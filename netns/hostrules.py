"""The part of a tunnel's firewall about the host's own addresses, and those that become so. Pure.

See `netns.ruleset`.
"""

from typing import Final

HOST_SET: Final = "host4"
"""The set of them; netd changes it when the host's addresses change."""


def named(field: str) -> str:
    """A match for packets whose ``field`` (``ip saddr``, ``ip daddr``) is such an address."""
    return f"{field} @{HOST_SET} {field} != @allowed4"


def outlived() -> str:
    """A line for packets of the guest that belong to a flow, in front of those that let them pass."""
    return f'    iif "tap0" ct state established {named("ip daddr")} jump outlived'


def chain() -> str:
    """A flow ends when its far end becomes the host's own, unless a forward leads there.

    A forward's flow begins at the guest and is translated; one that began outside is translated, too, but the
    guest's packets are its answers (`netns.otherports`).
    """
    return """\
  chain outlived {
    ct direction original ct status dnat return
    counter name denied_host goto refuse
  }"""
