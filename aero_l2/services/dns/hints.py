"""Addresses within SVCB and HTTPS records (RFC 9460), which clients dial like those of A and AAAA. Pure."""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address
from typing import Any, Final

import dns.rdata
import dns.rdatatype
import dns.rrset
from dns.rdtypes.svcbbase import IPv4HintParam, ParamKey

SERVICE_TYPES: Final = (dns.rdatatype.SVCB, dns.rdatatype.HTTPS)


def hinted(rdata: dns.rdata.Rdata) -> Iterator[IPv4Address]:
    """The IPv4 hints of a record of `SERVICE_TYPES`."""
    param: Any = _params(rdata).get(ParamKey.IPV4HINT)
    return map(IPv4Address, param.addresses if param else ())


def admit(records: Iterable[dns.rdata.Rdata], denies: Callable[[IPv4Address], bool]) -> list[dns.rdata.Rdata]:
    """The records without addresses that `denies` names and without IPv6 hints; all else in them stays.

    A record that makes a removed key mandatory would be malformed without it (section 8), so it goes too.
    """
    return [kept for rdata in records if (kept := _admit(rdata, denies)) is not None]


def _admit(rdata: dns.rdata.Rdata, denies: Callable[[IPv4Address], bool]) -> dns.rdata.Rdata | None:
    params = _params(rdata)
    addresses = list(hinted(rdata))
    kept = [str(address) for address in addresses if not denies(address)]
    removed = {ParamKey.IPV6HINT} & params.keys()
    if addresses and not kept:
        removed.add(ParamKey.IPV4HINT)
    if not removed and len(kept) == len(addresses):
        return rdata
    mandatory: Any = params.get(ParamKey.MANDATORY)
    if mandatory and removed.intersection(mandatory.keys):
        return None
    left = {key: value for key, value in params.items() if key not in removed}
    if kept:
        left[ParamKey.IPV4HINT] = IPv4HintParam(kept)  # type: ignore[no-untyped-call]
    return rdata.replace(params=left)


def _params(rdata: dns.rdata.Rdata) -> dict[ParamKey, Any]:
    """Parameters by key. Their values are None where empty."""
    return dict(getattr(rdata, "params", {}))
