"""Lists of domains: which names a guest may look up (docs/policy.md). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from aero_l2.config.settings import Settings


class DomainSet:
    """Whether a name is one of many domains or below one, in time that does not grow with their number."""

    __slots__ = ("_depths", "_domains")

    def __init__(self, domains: Iterable[str]) -> None:
        """`domains`: in lower case, without dots at either end."""
        self._domains = {tuple(domain.encode().split(b".")): domain for domain in domains}
        self._depths = sorted({len(labels) for labels in self._domains})

    def __len__(self) -> int:
        """How many domains there are."""
        return len(self._domains)

    def find(self, labels: Sequence[bytes]) -> str | None:
        """The domain that holds the name, the shortest if there are several; None if none does.

        `labels` as in a question, without that of the root. Their case does not matter (RFC 4343).
        """
        lower: tuple[bytes, ...] = ()
        for depth in self._depths:
            if depth > len(labels):
                break
            lower = lower or tuple(label.lower() for label in labels)
            domain = self._domains.get(lower[-depth:])
            if domain is not None:
                return domain
        return None


@dataclass(frozen=True, slots=True)
class DomainLists:
    """Names that may be looked up: those of `allowed` (empty = all) that are not of `blocked`."""

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    _allowed: DomainSet = field(init=False, repr=False, compare=False)
    _blocked: DomainSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare the lookup."""
        object.__setattr__(self, "_allowed", DomainSet(self.allowed))
        object.__setattr__(self, "_blocked", DomainSet(self.blocked))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The lists that the settings ask for."""
        return cls(settings.allowed_domains, settings.blocked_domains)

    @property
    def only_named(self) -> bool:
        """Whether no address is within reach but those that DNS has handed out."""
        return bool(self.allowed)

    @property
    def own_dns(self) -> bool:
        """Whether the gateway's DNS is the only one."""
        return bool(self.allowed or self.blocked)

    def blocking(self, labels: Sequence[bytes]) -> str | None:
        """The blocked domain that holds the name."""
        return self._blocked.find(labels)

    def allowing(self, labels: Sequence[bytes]) -> str | None:
        """The allowed domain that holds the name; None also where there is no list of them."""
        return self._allowed.find(labels)

    def denies(self, labels: Sequence[bytes]) -> bool:
        """Whether the name may not be looked up."""
        if self.blocking(labels) is not None:
            return True
        return self.only_named and self.allowing(labels) is None
