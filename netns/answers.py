"""The part of a tunnel's firewall that counts what the NAT side answers; see `netns.ruleset`. Pure."""

from typing import Final

from netns.newflows import ABANDONED

COUNTERS: Final = ("failed_tcp", "failed_udp")
"""Counters of refused connects and of ICMP errors about datagrams."""


def render() -> str:
    """The nft text of a chain before the forward chain's judgement (-1), which judges nothing itself.

    A connect that the guest's side gave up carries the mark `ABANDONED`: it is counted where it was given up.
    A connection is assured once the guest has acknowledged its SYN-ACK. Conntrack forgets one that is reset
    before that, so a second RST is not about it and counts nothing.
    """
    about = "meta l4proto icmp ct state related ct original protocol"
    unassured = f"ct status & assured == 0 ct mark != {ABANDONED}"
    return f"""\
  chain answers {{
    type filter hook forward priority -1; policy accept;
    iif != "tap1" accept
    {about} udp counter name failed_udp
    {about} tcp {unassured} counter name failed_tcp
    tcp flags & rst == rst ct direction reply {unassured} counter name failed_tcp
  }}"""
