"""Boots a guest in v86, unmodified from npm, under Node.js: its network card is a WebSocket to the proxy."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from support.ns import Namespace

_JS = Path(__file__).resolve().parents[1] / "js"
_IPXE = "/usr/lib/ipxe/ipxe.lkrn"
_BOOT_S = 120  # more than ten times what iPXE takes on an idle machine


def boot_ipxe(host: Namespace, relay_url: str, origin: str, script: str, until: str) -> str:
    """Run an iPXE script with the card on `relay_url`; the screen once a line of it begins with `until`.

    The emulator runs in the namespace `host`; the machine in it has no way out but the relay.
    """
    node = shutil.which("node")
    assert node is not None, "Node.js is not installed (./dev test)"
    with tempfile.TemporaryDirectory(prefix="aero-l2-v86-") as directory:
        initrd = Path(directory, "script")
        initrd.write_text(script)
        done = subprocess.run(
            host.enter(node, "v86-guest.mjs", relay_url, origin, _IPXE, str(initrd), until, str(_BOOT_S)),
            cwd=_JS,
            capture_output=True,
            text=True,
            timeout=_BOOT_S + 60,
            check=False,
        )
    return done.stdout + done.stderr
