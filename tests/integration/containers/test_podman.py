"""The image under rootless podman: the lines, the unit and the manifests of docs/podman.md."""

import base64
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import addresses as at
from support import guests, procfs
from support.containers import quadlet
from support.containers.podman import IMAGE, OPEN, SUBORDINATE, Box, Podman, rootless_podman
from support.ns import Namespace
from support.nsguest import ns_guest
from support.proxy import Role
from support.rawguest import raw_guest
from support.systemd import notified
from support.wait import wait_until
from support.world import World

from netns.supervisor import NETD_CAPABILITIES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LEAST = (
    "-u", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only",
    "--device", "/dev/net/tun",
)  # fmt: skip
ANY_PORT = ("-p", "8090")
SHOWN = ("--network", "slirp4netns:port_handler=slirp4netns")
FORWARDER, GATEWAY = "10.0.2.100", "10.0.2.2"
"""Of the container's own network: its address, and that of the host's loopback."""
SECRET = "s3cret-of-the-gateway-0123456789"
SITE = {
    "AERO_L2_ALLOWED_ORIGINS": "https://lab.example",
    "AERO_L2_ALLOWED_HOSTS": "lab.example",
    "AERO_L2_TRUSTED_PROXIES": GATEWAY,
    "AERO_L2_DENIED_CIDRS": "198.51.100.7",
}
CLIENT = "203.0.113.50"
_UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"X-Forwarded-For: {CLIENT}",
)  # fmt: skip
_NETD = sum(1 << capability for capability in NETD_CAPABILITIES)
_MOST: dict[Role, int] = {"netd": _NETD, "nat": 1 << 10}  # slirp4netns insists on NET_BIND_SERVICE


@pytest.fixture(scope="module")
def podman(world: World) -> Iterator[Podman]:
    """Podman on the world's host, with the image."""
    with rootless_podman(world) as started:
        yield started


def documented_line() -> list[str]:
    """The first `podman run` of docs/podman.md, without these two words."""
    blocks = (ROOT / "docs/podman.md").read_text().split("```sh\n")[1:]
    line = next(block.split("```")[0] for block in blocks if block.startswith("podman run "))
    return shlex.split(line.replace("\\\n", " "))[2:]


@pytest.fixture(scope="module")
def box(podman: Podman) -> Iterator[Box]:
    """The documented line, for all tests that leave it as they found it."""
    podman.give("aero-l2.env", "\n".join(OPEN[1::2]))
    detach, *line, image = documented_line()
    assert (detach, tuple(line[: len(LEAST)]), image) == ("--detach", LEAST, "aero-l2:latest")
    with podman.box(*line, IMAGE) as running:
        running.wait_ready()
        yield running


def test_real_guest_on_another_machine_gets_all_the_network_it_is_promised(box: Box) -> None:
    console = guests.boot(guests.UML, box.world.other, f"ws://{at.HOST_PRIVATE}:{box.port}/l2")
    assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- container ---\n{box.log}"


async def test_nobody_is_root_of_the_host_and_only_netd_and_slirp4netns_have_a_capability(box: Box) -> None:
    user = SUBORDINATE + 1000 - 1
    async with raw_guest(box) as guest:
        await guest.echo(b"set up")
        found = {pid: role for pid, role in box.processes().items() if role != "other"}
        assert sorted(found.values()) == ["launch", "nat", "netd", "server"]
        for pid, role in found.items():
            about = procfs.status(pid)
            assert about["Uid"].split() == [str(user)] * 4, role
            assert int(about["CapEff"], 16) & ~_MOST.get(role, 0) == 0, role
            assert about["NoNewPrivs"] == "1", role


def test_of_the_container_nothing_runs_as_root_of_the_host(box: Box, podman: Podman) -> None:
    """Not conmon, the port forwarder or the container's own NAT either."""
    ids = {int(procfs.status(pid)["Uid"].split()[0]) for pid in procfs.descendants(podman.holder)}
    assert ids
    assert 0 not in ids


def test_file_system_is_read_only(box: Box) -> None:
    for folder in ("/", "/etc", "/opt/aero-l2", "/usr/bin", "/var"):
        status, said = box.exec("touch", f"{folder}/written")
        assert status != 0
        assert "Read-only file system" in said


def test_doctor_inside_finds_no_problem(box: Box) -> None:
    status, said = box.exec("aero-l2", "doctor")
    assert status == 0, said
    assert "in a podman container" in said


async def test_stop_closes_tunnels_with_1001_and_ends_with_0(podman: Podman) -> None:
    with podman.box(*LEAST, *ANY_PORT, *OPEN, IMAGE) as box:
        box.wait_ready()
        async with box.tunnel() as tunnel:
            podman.run("stop", "--time", "15", box.name)
            assert await tunnel.closed() == (1001, "shutting down")
        assert box.inspect()["State"]["ExitCode"] == 0


def test_without_the_device_it_says_so_and_what_to_type(podman: Podman) -> None:
    with podman.box(*LEAST[:-2], *ANY_PORT, *OPEN, IMAGE) as box:
        wait_until(lambda: "/dev/net/tun" in box.get("/readyz")[1], "it has tried", 30)
        status, said = box.get("/readyz")
        assert status == 503
        assert said.startswith("/dev/net/tun is missing: ")
        (line,) = box.events("tunnels cannot be made")
        assert line["fix"] == "podman run --device /dev/net/tun …"
        status, said = box.exec("aero-l2", "doctor")
        assert status == 1
        assert "podman run --device /dev/net/tun …" in said


def _client(box: Box, machine: Namespace, address: str, port: int) -> str:
    """Who has come, by the log, when somebody on the machine says to come for another."""
    seen = len(box.events("upgrade refused"))
    headers = [word for header in _UPGRADE for word in ("-H", header)]
    machine.run("curl", "-sS", "-m", "20", *headers, f"http://{address}:{port}/l2")
    wait_until(lambda: len(box.events("upgrade refused")) > seen, "the log has the refusal")
    return str(box.events("upgrade refused")[-1]["client"])


def _clients(box: Box, port: int = 0) -> tuple[str, str, str]:
    """As seen from another machine, from the host by its own address, from the host by localhost."""
    port = port or box.port
    host, other = box.world.host, box.world.other
    ways = ((other, at.HOST_PRIVATE), (host, at.HOST_PRIVATE), (host, at.LOOPBACK))
    first, second, third = (_client(box, machine, address, port) for machine, address in ways)
    return first, second, third


@contextmanager
def _published(podman: Podman, *options: str) -> Iterator[Box]:
    with podman.box(*LEAST, *options, *OPEN, IMAGE) as box:
        box.wait_ready()
        yield box


def test_the_usual_forwarder_hides_the_client(box: Box) -> None:
    assert _clients(box) == (FORWARDER, FORWARDER, FORWARDER)


def test_the_usual_forwarder_may_be_trusted_on_loopback_only(podman: Podman) -> None:
    """Whoever reaches the port is believed: so nobody but the host may."""
    trust = ("--env", f"AERO_L2_TRUSTED_PROXIES={FORWARDER}")
    with _published(podman, *ANY_PORT, *trust) as box:
        assert _clients(box) == (CLIENT, CLIENT, CLIENT)
    with _published(podman, "-p", "127.0.0.1::8090", *trust) as box:
        assert _client(box, box.world.host, at.LOOPBACK, box.port) == CLIENT
        refused = box.world.other.enter(
            "curl", "-sS", "-m", "20", f"http://{at.HOST_PRIVATE}:{box.port}/healthz"
        )
        assert subprocess.run(refused, capture_output=True, check=False).returncode == 7  # not connected


def test_slirp4netns_as_the_forwarder_shows_the_client(podman: Podman) -> None:
    with _published(podman, *SHOWN, *ANY_PORT) as box:
        assert _clients(box) == (at.OTHER, at.HOST_PRIVATE, GATEWAY)


def test_behind_slirp4netns_a_proxy_on_the_host_is_trusted_and_nobody_else(
    podman: Podman,
) -> None:
    with _published(podman, *SHOWN, *ANY_PORT, "--env", f"AERO_L2_TRUSTED_PROXIES={GATEWAY}") as box:
        assert _clients(box) == (at.OTHER, at.HOST_PRIVATE, CLIENT)


def test_the_hosts_own_network_shows_the_client(podman: Podman) -> None:
    listen = ("--env", "AERO_L2_PROXY_LISTEN_ADDR=0.0.0.0:8190")
    with podman.box(*LEAST, "--network", "host", *listen, *OPEN, IMAGE) as box:
        box.wait_listening()
        assert _clients(box, 8190) == (at.OTHER, at.HOST_PRIVATE, at.LOOPBACK)


def _cookie(tmp_path: Path, secret: str) -> str:
    """A session of the gateway that shares the secret."""
    file = tmp_path / "secret"
    file.write_text(secret)
    command = [ROOT / ".venv/bin/aero-l2", "token", "session", "--sid", "alice", "--secret-file", file]
    return subprocess.check_output(command, text=True).strip()


def _through_an_edge(cookie: str) -> dict[str, str]:
    """What a TLS edge on this host passes on of a browser's request."""
    return {
        "Origin": "https://lab.example", "Cookie": f"aero_session={cookie}", "X-Forwarded-For": CLIENT,
        "X-Forwarded-Host": "lab.example", "X-Forwarded-Proto": "https",
    }  # fmt: skip


async def _serves_a_browser_behind_an_edge(box: Box, tmp_path: Path, secret: str) -> None:
    """Lease, DNS and HTTP by a Linux guest; the log has the browser's address and session."""
    headers = _through_an_edge(_cookie(tmp_path, secret))
    async with box.tunnel(headers) as tunnel, ns_guest(tunnel, static=False) as guest:
        await guest.lease()
        fetch = ("curl", "-sS", "--fail", "--max-time", "50", "http://web.example.test/hello")
        assert await guest.run(*fetch) == at.HELLO
    assert box.events("tunnel opened")[-1]["client"] == CLIENT
    assert box.events("tunnel opened")[-1]["principal"] == "alice"


def _filled_in() -> str:
    lines = (ROOT / "deploy/production.env").read_text().splitlines()
    return "\n".join([*lines, *(f"{name}={value}" for name, value in SITE.items())])


async def test_quadlet_unit_serves_and_tells_systemd(podman: Podman, tmp_path: Path) -> None:
    """By the line that its keys stand for. Not of it: the cgroup, which systemd would have made."""
    podman.give("production.env", _filled_in())
    podman.give("secret", SECRET)
    podman.run("secret", "create", "aero-l2-session-secret", "secret")
    line = quadlet.run_line(ROOT / "deploy/podman/aero-l2.container")
    ours = {
        "%E/aero-l2/production.env": "production.env",
        "127.0.0.1:8090:8090": "127.0.0.1::8090",
        "localhost/aero-l2:latest": IMAGE,
    }
    words = [ours.pop(word, word) for word in line]
    assert not ours, "what the unit has instead"
    with notified(str(podman.folder / "run/notify")) as systemd:
        given = (f"NOTIFY_SOCKET={systemd.address}",)
        done = podman.attempt("run", "--detach", *words, env=given)
        assert done.returncode == 0, done.stderr
        with podman.removed("aero-l2") as box:
            assert systemd.wait("READY") == "1"
            assert box.get("/readyz")[0] == 200
            await _serves_a_browser_behind_an_edge(box, tmp_path, SECRET)
            started = time.monotonic()
            podman.run("stop", "aero-l2")
            assert time.monotonic() - started < 10
            assert box.inspect()["State"]["ExitCode"] == 0
            assert box.inspect()["Config"]["StopTimeout"] == 15


def _object(kind: str, name: str, data: dict[str, str]) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data})


@contextmanager
def _played(podman: Podman, name: str, manifest: dict[str, Any], settings: dict[str, str]) -> Iterator[Box]:
    """``podman kube play`` of a manifest with these settings and the secret; its container of this name."""
    secret = {"session-secret": base64.b64encode(SECRET.encode()).decode()}
    podman.give("secret.yaml", _object("Secret", "aero-l2-secrets", secret))
    podman.give("settings.yaml", _object("ConfigMap", "aero-l2-settings", settings))
    podman.run("kube", "play", "secret.yaml")
    file = podman.give("pod.yaml", yaml.safe_dump(manifest))
    try:
        podman.run("kube", "play", *SHOWN, "--configmap", "settings.yaml", str(file))
        box = Box(podman, name)
        box.wait_listening()
        yield box
    finally:
        podman.run("kube", "down", str(file))
        podman.run("secret", "rm", "aero-l2-secrets")


def _manifest(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / path).read_text()))


def _in_our_image(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    container["image"] = IMAGE
    return dict(container)


async def test_pod_of_podman_serves(podman: Podman, tmp_path: Path) -> None:
    pod = _manifest("deploy/podman/aero-l2.yaml")
    _in_our_image(pod["spec"])
    port = pod["spec"]["containers"][0]["ports"][0]
    assert (port.pop("hostPort"), port["hostIP"]) == (8090, at.LOOPBACK)
    port["hostPort"] = 8190
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "session-secret")
    volume["hostPath"]["path"] = str(podman.give("session-secret", SECRET))
    podman.run("unshare", "chown", "10001:10001", "session-secret")
    settings = dict(line.split("=", 1) for line in _filled_in().splitlines() if line[:1].isalpha())
    with _played(podman, "aero-l2-proxy", pod, settings) as box:
        await _serves_a_browser_behind_an_edge(box, tmp_path, SECRET)
        _is_least_privileged(box)


async def test_pod_of_kubernetes_serves(podman: Podman, tmp_path: Path) -> None:
    """As podman 4.3 plays it: it knows no status.hostIPs, and writes secrets without decoding them."""
    deployment = _manifest("deploy/kubernetes/deployment.yaml")
    spec = deployment["spec"]["template"]["spec"]
    container = _in_our_image(spec)
    assert "NODE_ADDRESSES" in {variable["name"] for variable in spec["containers"][0].pop("env")}
    deployment["spec"]["replicas"] = 1  # both would have the same ports of the host
    for number, port in enumerate(container["ports"]):
        port["hostPort"] = 8290 + number
    settings = {**_manifest("deploy/kubernetes/configmap.yaml")["data"], **SITE}
    with _played(podman, "aero-l2-proxy-pod-0-aero-l2-proxy", deployment, settings) as box:
        undecoded = base64.b64encode(SECRET.encode()).decode()
        await _serves_a_browser_behind_an_edge(box, tmp_path, undecoded)
        _is_least_privileged(box)
        assert box.get("/metrics")[0] == 404
        assert box.inspect()["HostConfig"]["Memory"] == 1 << 30


def _is_least_privileged(box: Box) -> None:
    first, *_ = box.processes()
    about = procfs.status(first)
    assert about["Uid"].split() == [str(SUBORDINATE + 10001 - 1)] * 4
    assert [int(about[name], 16) for name in procfs.CAPABILITY_SETS] == [0] * 5
    assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2")
    assert "Read-only file system" in box.exec("touch", "/etc/written")[1]
