"""The directory of captures, before the first tunnel: made if it is missing, and tried."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import Final

from aero_l2.errors import CaptureUnavailable
from aero_l2.observe import outside
from aero_l2.observe.capture.file import FOLDER_MODE, headers

_TRIED: Final = ".aero-l2-"


def prepare(folder: str) -> None:
    """Make the directory if there is none, and write and remove a file in it.

    Raises:
        CaptureUnavailable: that cannot be done; the reason says what to do.
    """
    try:
        with contextlib.suppress(FileExistsError):
            parent = os.path.dirname(folder)
            os.makedirs(parent, 0o755, exist_ok=True)
            os.mkdir(folder, FOLDER_MODE)
        with tempfile.NamedTemporaryFile(prefix=_TRIED, dir=folder, buffering=0) as file:
            file.write(headers(0))
    except OSError as error:
        raise CaptureUnavailable(
            f"cannot write to {folder}: {error.strerror}: {_advice(error, folder)}"
        ) from error


def _advice(error: OSError, folder: str) -> str:
    user = outside.user()
    match error.errno:
        case errno.EACCES | errno.EPERM if os.path.isdir(folder):
            return f"let {user} write there (chown), or name another directory"
        case errno.EACCES | errno.EPERM:
            return f"{user} cannot make it: make it yourself and give it to {user} (chown)"
        case errno.EROFS:
            return f"mount a file system there that {user} may write to, such as a volume"
        case errno.ENOSPC | errno.EDQUOT:
            return "make room, or name another directory"
        case errno.ENOTDIR:
            return "name a directory"
        case _:
            return f"name a directory that {user} may write to"
