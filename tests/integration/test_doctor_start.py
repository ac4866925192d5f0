"""The doctor's short form: what `serve` says of its host when it starts, and what makes it unready."""

import json
import pwd
import socket
import time
from pathlib import Path
from typing import Any

from support import addresses as at
from support.proxy import SERVICE_USER, USER_ID, Proxy, RunAs, run_proxy
from support.stage import copy_program
from support.wait import wait_until
from support.world import World

SAID = "the host needs a look"


def events(proxy: Proxy, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in proxy.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def _lacks_reject(programs: Path, devices: Path, mounts: int) -> None:
    """As on a kernel without nft_reject."""
    real = programs / "real-nft"
    (programs / "nft").rename(real)
    (programs / "nft").write_text(f"""#!/bin/sh
script=$(cat)
case $script in
  *"reject with"*) echo 'Error: Could not process rule: No such file or directory' >&2; exit 1 ;;
esac
printf '%s\\n' "$script" | {real} "$@"
""")
    (programs / "nft").chmod(0o755)


def test_unready_server_names_what_the_kernel_lacks_and_what_to_type(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, ready=False, before=_lacks_reject) as proxy:
        wait_until(lambda: "lacks" in proxy.get("/readyz")[1], "it has tried")
        status, said = proxy.get("/readyz")
        assert status == 503
        assert said.strip() == "the kernel's nf_tables lacks reject: modprobe -a nft_reject_inet"
        assert "modprobe nft_reject_inet" in events(proxy, "tunnels cannot be made")[0]["fix"]
        (proxy.programs / "nft").unlink()
        copy_program("nft", proxy.programs)
        wait_until(lambda: proxy.get("/readyz")[0] == 200, "it is ready once that is mended", 60)


def test_resolver_that_is_silent_keeps_nobody_waiting_and_is_a_warning(world: World, proxy_as: RunAs) -> None:
    with world.host.open_socket(kind=socket.SOCK_DGRAM) as silent:
        silent.bind((at.LOOPBACK, 0))
        server = f"{at.LOOPBACK}:{silent.getsockname()[1]}"
        began = time.monotonic()
        settings = {"AERO_L2_DNS_SERVERS": server, "AERO_L2_DNS_LOOKUP_TIMEOUT_MS": "60000"}
        with run_proxy(world, proxy_as, settings) as proxy:
            assert time.monotonic() - began < 30, "it is ready while the resolver still has half a minute"
            assert proxy.get("/readyz")[0] == 200
        settings["AERO_L2_DNS_LOOKUP_TIMEOUT_MS"] = "200"
        with run_proxy(world, proxy_as, settings) as proxy:
            wait_until(lambda: bool(events(proxy, SAID)), "the log says so", 30)
            wait_until(lambda: any(e["check"] == "DNS" for e in events(proxy, SAID)), "of DNS", 30)
            (line,) = [event for event in events(proxy, SAID) if event["check"] == "DNS"]
            assert line["level"] == "warning"
            assert f"{server}: no answer within 0.2 s" in line["text"]
            assert line["fix"].startswith("export AERO_L2_DNS_SERVERS=")
            assert proxy.get("/readyz")[0] == 200


def test_note_is_a_warning_once(world: World, proxy_as: RunAs) -> None:
    """An ordinary user's group is not in net.ipv4.ping_group_range of a new namespace."""
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_CONNECTIONS": "30000"}) as proxy:
        assert proxy.get("/readyz")[0] == 200
        found = [(event["check"], event["text"]) for event in events(proxy, SAID)]
        assert len(found) == len(set(found))
        assert any(check.startswith("limit: ") or check == "sysctls" for check, _ in found), found
        assert all(event["level"] == "warning" for event in events(proxy, SAID))


def test_group_that_may_not_ping_is_called_as_the_host_calls_it(world: World, proxy_as: RunAs) -> None:
    """In the server's own user namespace it is 0, and a sysctl with that would change nothing."""
    group = USER_ID if proxy_as == "user" else pwd.getpwnam(SERVICE_USER).pw_gid
    with run_proxy(world, proxy_as) as proxy:
        wait_until(lambda: any(event["check"] == "pings" for event in events(proxy, SAID)), "it is said", 30)
        (line,) = [event for event in events(proxy, SAID) if event["check"] == "pings"]
        assert f"group {group} is not in net.ipv4.ping_group_range" in line["text"]
