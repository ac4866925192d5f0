"""What a tunnel's rules need of the kernel's nf_tables, each alone: tried where the whole is refused.

nft(8) and the kernel say of a ruleset only that it cannot be loaded ("No such file or directory"), not which
part of it the kernel lacks. Each `FEATURES` is the smallest script that needs one of them.
"""

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from netns.errors import RulesRefused, SegmentError
from netns.nftables import applied_rules

MAX_TRIES_S: Final = 8.0
"""For all of them together; each takes some 6 ms."""
EXPLAINED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing the rules use. module, option: the module, and the kernel's build option, that has it."""

    name: str
    module: str
    option: str
    script: str


def _in_chain(kind: str, hook: str, rule: str, before: str = "") -> str:
    chain = f"chain c {{\n type {kind} hook {hook} priority 0;\n {rule}\n}}"
    return f"table inet try {{\n{before}\n{chain}\n}}\n"


def _forward(rule: str, before: str = "") -> str:
    return _in_chain("filter", "forward", rule, before)


_LIFE: Final = "ct timeout life { protocol tcp; l3proto ip; policy = { established: 60 }; }"
_SERVERS: Final = "set s { type ipv4_addr . inet_service; flags dynamic, timeout; timeout 9s; size 8; }"

FEATURES: Final = (
    Feature("nf_tables", "nf_tables", "CONFIG_NF_TABLES", "table ip try { }\n"),
    Feature("inet tables", "nf_tables", "CONFIG_NF_TABLES_INET", _forward("accept")),
    Feature(
        "arp tables", "nf_tables", "CONFIG_NF_TABLES_ARP",
        "table arp try {\n chain c {\n type filter hook input priority 0;\n accept\n }\n}\n",
    ),
    Feature("named counters", "nf_tables", "CONFIG_NF_TABLES", _forward("counter name n", "counter n { }")),
    Feature("sets", "nf_tables", "CONFIG_NF_TABLES", _forward("ip protocol { tcp, udp } accept")),
    Feature(
        "sets of prefixes", "nf_tables", "CONFIG_NF_TABLES",
        _forward("ip daddr @s drop", "set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }"),
    ),
    Feature(
        "sets that rules fill", "nf_tables", "CONFIG_NF_TABLES",
        _forward("update @s { ip daddr . tcp dport }", _SERVERS),
    ),
    Feature("limit", "nft_limit", "CONFIG_NFT_LIMIT", _forward("limit rate over 9/second drop")),
    Feature(
        "reject", "nft_reject_inet", "CONFIG_NFT_REJECT",
        _forward("reject with icmp type admin-prohibited"),
    ),
    Feature("ct", "nft_ct", "CONFIG_NFT_CT", _forward("ct state established accept")),
    Feature("notrack", "nft_ct", "CONFIG_NFT_CT", _in_chain("filter", "prerouting", "notrack")),
    Feature("ct mark", "nft_ct", "CONFIG_NF_CONNTRACK_MARK", _forward("ct mark set 1")),
    Feature("ct event", "nft_ct", "CONFIG_NF_CONNTRACK_EVENTS", _forward("ct event set new,destroy")),
    Feature("ct count", "nft_connlimit", "CONFIG_NFT_CONNLIMIT", _forward("ct count over 9 drop")),
    Feature("ct timeout", "nft_ct", "CONFIG_NF_CONNTRACK_TIMEOUT", _forward('ct timeout set "life"', _LIFE)),
    Feature(
        "nat", "nft_chain_nat", "CONFIG_NFT_NAT",
        _in_chain("nat", "prerouting", "tcp dport 9 dnat ip to 192.0.2.1:9"),
    ),
    Feature(
        "source nat (masquerade)", "nft_chain_nat", "CONFIG_NFT_NAT",
        _in_chain("nat", "postrouting", "snat ip to 192.0.2.1"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Missing:
    """A feature that was refused, and what nft said."""

    feature: Feature
    said: str


def missing(nft: str, features: Iterable[Feature] = FEATURES) -> list[Missing]:
    """Those that cannot be loaded into the calling thread's namespace; they replace its rules.

    What nobody has tried within `MAX_TRIES_S` is taken for there.
    """
    until = time.monotonic() + MAX_TRIES_S
    return [one for feature in features if time.monotonic() < until and (one := _try(nft, feature))]


def _try(nft: str, feature: Feature) -> Missing | None:
    try:
        with applied_rules(nft, f"flush ruleset\n{feature.script}"):
            return None
    except SegmentError as error:
        return Missing(feature, str(error).rpartition(": ")[2])


def explained(nft: str, refusal: RulesRefused) -> RulesRefused:
    """The refusal of a whole ruleset in the calling thread's namespace, with what the kernel lacks, if known.

    An explanation is good for `EXPLAINED_S`: a host that can make no tunnel is asked for one again and again.
    """
    return RulesRefused(_explanation(nft, str(refusal), int(time.monotonic() / EXPLAINED_S)))


@lru_cache(maxsize=4)
def _explanation(nft: str, refusal: str, period: int) -> str:
    lacks = missing(nft)
    if not lacks:
        return refusal
    if len(lacks) == len(FEATURES):
        return f"{refusal} (no rule at all can be loaded)"
    names = ", ".join(one.feature.name for one in lacks)
    return f"the kernel's nf_tables lacks {names}: modprobe -a {' '.join(modules(lacks))}"


def modules(lacks: Iterable[Missing]) -> list[str]:
    """Kernel modules that have what is missing."""
    return list(dict.fromkeys(one.feature.module for one in lacks))


def version(nft: str) -> str:
    """What `nft --version` says, its first line. Raises OSError, subprocess.TimeoutExpired."""
    done = subprocess.run(
        [nft, "--version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        timeout=5,
        check=False,
    )
    first = done.stdout.decode(errors="replace").strip().splitlines()
    return first[0][:100] if first else f"status {done.returncode}"
