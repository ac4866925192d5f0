"""What the resolver that all tunnels share counts; whoever makes it keeps the numbers."""

from typing import Literal

CacheResult = Literal["hit", "shared", "miss"]
UpstreamFailure = Literal["timeout", "unreachable", "malformed", "rcode", "no_server", "too_many"]


class ResolverCounts:
    """Counts nothing; see docs/metrics.md for what a heir may count."""

    def looked_up(self, result: CacheResult) -> None:
        """A query that needs an upstream's answer, and where that comes from."""

    def answered(self, seconds: float) -> None:
        """An upstream answered, be it that it cannot."""

    def failed(self, cause: UpstreamFailure) -> None:
        """An upstream did not answer well, or none was asked."""
