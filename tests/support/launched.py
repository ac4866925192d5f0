"""A server script of the test's own under the real supervisor, beside the real netd."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.ns import Namespace

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def run_as_server(script: Path, inside: Namespace, *arguments: str, timeout_s: float = 60) -> dict[str, Any]:
    """Run ``script`` in the server's place, with its uid, capabilities and sockets.

    Returns the JSON object it prints last on stdout; AssertionError with its stderr if it fails.
    """
    command = [PYTHON, "-I", "-m", "netns.launch", "--driver", "slirp.slirp4netns:Slirp4netns"]
    with open(os.devnull) as no_settings:
        command += ["--search-path", SEARCH_PATH, "--settings-fd", str(no_settings.fileno())]
        done = subprocess.run(
            inside.enter(*command, "--", PYTHON, str(script), *arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": SEARCH_PATH, "LANG": "C.UTF-8"},
            pass_fds=(no_settings.fileno(),),
            check=False,
        )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    result["stderr"] = done.stderr
    return result


def control_socket_number() -> int:
    """For such a script: the descriptor on which netd's socket comes."""
    return int(os.environ["AERO_L2_CONTROL_FD"])


assert sys.version_info >= (3, 11)
