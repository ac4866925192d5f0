"""What can go wrong while a tunnel's namespace is made.

    NetnsError
    ├── LaunchError        the supervisor cannot set itself up: the program does not start
    ├── MessageError       a message between server and netd breaks its format
    ├── NetdUnavailable    netd is gone or not back yet; existing tunnels are unaffected
    └── SegmentError       one tunnel's namespace could not be made; everything done so far was undone
        └── RulesRefused   nft(8) or the kernel would not take its rules

Every message is one line for people: what was wrong, with which value, and what to do.
"""

import errno
import os


class NetnsError(Exception):
    """Base of this package's errors."""


class LaunchError(NetnsError):
    """The supervisor cannot prepare users, namespaces or mounts."""


class MessageError(NetnsError):
    """A message on the socket between server and netd is malformed."""


class TruncatedMessage(MessageError):
    """A message came whose data or descriptors did not fit; ``data`` is what came."""

    def __init__(self, data: bytes, reason: str) -> None:
        super().__init__(reason)
        self.data = data


class NetdUnavailable(NetnsError):
    """The privileged helper is not there to answer."""


class SegmentError(NetnsError):
    """A tunnel's namespace, TAPs, rules or NAT process could not be made."""


class RulesRefused(SegmentError):
    """The rules could not be loaded; the message has what nft said."""


def describe_os_error(doing: str, error: OSError) -> str:
    """One line for people: ``doing: reason``, with what to do for the limits an operator can raise."""
    advice = {
        errno.EMFILE: "; the process is out of file descriptors, raise LimitNOFILE (ulimit -n)",
        errno.ENFILE: "; the host is out of file descriptors, raise the sysctl fs.file-max",
        errno.ENOSPC: "; the limit of namespaces is reached, raise the sysctl user.max_net_namespaces",
        errno.EAGAIN: "; the limit of processes is reached, raise TasksMax (ulimit -u)",
        errno.ENOMEM: "; the host is out of memory",
    }.get(error.errno or 0, "")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{doing}: {reason}{advice}"
