"""Cuts connections in a namespace without a word to either end, as a pulled cable does, and joins them again.

Packets are dropped by nftables, which neither end's TCP hears of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from support.ns import Namespace


class Cut:
    """What is dropped; more can be added."""

    def __init__(self, where: Namespace) -> None:
        self._where = where

    def drop(self, *matches: str) -> None:
        """Drop what leaves a socket of the namespace and matches, each in nft's words."""
        for match in matches:
            self._where.run("nft", "add", "rule", "inet", "cut", "output", match, "drop")

    def refuse(self, *matches: str) -> None:
        """The same, but the sender hears of it."""
        for match in matches:
            self._where.run("nft", "add", "rule", "inet", "cut", "output", match, "reject")

    def both_ways(self, port: int) -> None:
        """Drop everything from and to a local TCP port."""
        self.drop(f"tcp sport {port}", f"tcp dport {port}")


@contextmanager
def cut(where: Namespace) -> Iterator[Cut]:
    """An empty cut, which is mended when the block ends."""
    chain = "{ type filter hook output priority 0; };"
    where.run("nft", "-f", "-", input=f"table inet cut {{ chain output {chain} }}\n")
    try:
        yield Cut(where)
    finally:
        where.run("nft", "delete", "table", "inet", "cut")
