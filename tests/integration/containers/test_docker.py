"""The image under Docker, with the flags of docs/containers.md and nothing more."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import addresses as at
from support import guests, images, procfs
from support.containers import build
from support.containers.docker import BRIDGE, PORT, PROFILE, UID, Box, DockerHost, least_privilege
from support.ns import Namespace
from support.proxy import Role
from support.rawguest import raw_guest
from support.tunnel import Tunnel
from support.wait import until, wait_until

from netns.supervisor import NETD_CAPABILITIES

pytestmark = pytest.mark.slow

_NETD = sum(1 << capability for capability in NETD_CAPABILITIES)
_NET_BIND_SERVICE = 1 << 10
_PERMITTED: dict[Role, int] = {"launch": _NETD, "netd": _NETD, "nat": _NET_BIND_SERVICE}
_EFFECTIVE: dict[Role, int] = {**_PERMITTED, "launch": 0}
_SIZE_LIMIT = 220_000_000


def test_real_guest_gets_all_the_network_it_is_promised(box: Box) -> None:
    """Lease, names, HTTP, 16 MiB each way: from outside of the container, by the port that is published."""
    console = guests.boot(guests.UML, box.world.host, box.port)
    assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- container ---\n{box.log}"


async def test_no_process_but_netd_and_slirp4netns_has_a_capability_and_none_over_the_host(
    box: Box,
) -> None:
    async with raw_guest(box) as guest:
        await guest.echo(b"set up")
        found = box.processes()
        roles = {role for role in found.values() if role != "other"}
        assert roles == {"launch", "nat", "netd", "server"}
        for pid, role in found.items():
            about = procfs.status(pid)
            effective, permitted = int(about["CapEff"], 16), int(about["CapPrm"], 16)
            assert about["Uid"].split() == [str(UID)] * 4, role
            assert about["Gid"].split() == [str(UID)] * 4, role
            assert effective & ~_EFFECTIVE.get(role, 0) == 0, role
            assert permitted & ~_PERMITTED.get(role, 0) == 0, role
            assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2"), role
            if effective:
                assert procfs.link_of(f"/proc/{pid}/ns/user") != procfs.link_of("/proc/self/ns/user"), role


def test_file_system_is_read_only(box: Box) -> None:
    for folder in ("/", "/etc", "/opt/aero-l2", "/usr/bin", "/var"):
        status, said = box.run("touch", f"{folder}/written")
        assert status != 0
        assert "Read-only file system" in said


def test_version_and_labels_are_those_of_the_build(box: Box, docker_host: DockerHost) -> None:
    status, body = box.get("/version")
    assert status == 200
    said = {"version": build.VERSION, "gitSha": build.GIT_SHA, "builtAt": build.BUILD_TIMESTAMP}
    assert json.loads(body) == said
    labels = docker_host.image().labels
    names = ("version", "revision", "created")
    assert [labels[f"org.opencontainers.image.{name}"] for name in names] == list(said.values())
    assert labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0"


def test_it_becomes_healthy(box: Box) -> None:
    wait_until(lambda: box.state()["Health"]["Status"] == "healthy", "the container is healthy", 60)
    (last, *_) = reversed(box.state()["Health"]["Log"])
    assert last["Output"] == "/healthz of 127.0.0.1 port 8090: ok\n"


def test_doctor_inside_finds_no_problem(box: Box) -> None:
    status, said = box.run("aero-l2", "doctor")
    assert status == 0, said
    assert "in a Docker container" in said


async def _seen_as(box: Box, namespace: Namespace, address: str) -> str:
    """What the proxy takes for the client of a tunnel that begins there and goes to this address."""
    before = len(box.events("tunnel opened"))
    async with Tunnel(namespace, box.port, address=address):
        await until(lambda: len(box.events("tunnel opened")) > before, "the log has the tunnel")
    return str(box.events("tunnel opened")[-1]["client"])


async def test_client_behind_the_published_port_is_seen_by_its_own_address(box: Box) -> None:
    """From another machine; connections of the host itself come from the bridge's address."""
    assert await _seen_as(box, box.world.other, at.HOST_PRIVATE) == at.OTHER
    assert await _seen_as(box, box.world.host, at.LOOPBACK) == BRIDGE


@pytest.fixture
def as_documented(docker_host: DockerHost) -> Iterator[DockerHost]:
    """The image under the name that the documents have, and its container and volume gone afterwards."""
    docker_host.image().tag("aero-l2", "latest")
    yield docker_host
    for container in docker_host.client.containers.list(all=True, filters={"name": "^/aero-l2$"}):
        container.remove(force=True)
    for volume in docker_host.client.volumes.list(filters={"name": "aero-l2-data"}):
        volume.remove(force=True)
    docker_host.client.images.remove("aero-l2:latest")


def documented(words: str) -> str:
    """The block of docs/containers.md that begins with these words."""
    page = (images.REPOSITORY / "docs/containers.md").read_text()
    (found,) = [one for one in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) if one.startswith(words)]
    return str(found)


def test_documented_commands_run_it(as_documented: DockerHost, tmp_path: Path) -> None:
    as_documented.typed(tmp_path, documented("docker run --rm --entrypoint cat"))
    assert (tmp_path / "seccomp-aero.json").read_bytes() == PROFILE.read_bytes()
    (tmp_path / "key").write_text("a-key-of-the-test-0123456789")
    (tmp_path / "key").chmod(0o400)
    os.chown(tmp_path / "key", UID, UID)
    as_documented.typed(tmp_path, documented("docker run --name aero-l2 --detach"))
    container = as_documented.client.containers.get("aero-l2")
    box = Box(as_documented.world, container, PORT)
    box.wait_ready()
    assert "doctor" in documented("docker exec aero-l2 aero-l2 doctor")
    assert "all well" in as_documented.typed(tmp_path, "docker exec aero-l2 aero-l2 doctor")
    as_documented.typed(tmp_path, "docker kill --signal HUP aero-l2 && docker stop aero-l2")
    assert [event["level"] for event in box.events("settings reloaded")] == ["info"]
    assert box.state()["ExitCode"] == 0


def test_command_of_the_readme_runs_it(as_documented: DockerHost) -> None:
    page = (images.REPOSITORY / "README.md").read_text()
    (command,) = re.findall(r"^docker run (.*?)^```", page, re.M | re.S)
    as_documented.typed(images.REPOSITORY, f"docker run --name aero-l2 --detach {command}")
    box = Box(as_documented.world, as_documented.client.containers.get("aero-l2"), PORT)
    box.wait_ready()
    assert box.get("/l2")[0] == 400


async def test_captures_audit_log_and_admin_socket_are_where_the_documents_have_them(
    as_documented: DockerHost, tmp_path: Path
) -> None:
    create, give, run = documented("docker volume create").splitlines()
    as_documented.typed(tmp_path, f"{create}\n{give}")
    settings = dict(word.split("=", 1) for word in re.findall(r"--env (\S+)", run))
    socket = {"AERO_L2_ADMIN_SOCKET": "/tmp/admin.sock"}
    with as_documented.box({**settings, **socket}, volumes=["aero-l2-data:/data"]) as box:
        box.wait_ready()
        async with raw_guest(box) as guest:
            await guest.echo(b"captured")
            status, said = box.run("aero-l2", "top", "--once", "--json")
            assert status == 0, said
            assert len(json.loads(said)["sessions"]) == 1
        assert box.run("sh", "-c", "ls /data/captures/*.pcapng")[0] == 0
        assert box.run("grep", "-q", '"session"', settings["AERO_L2_AUDIT_LOG"])[0] == 0


async def test_stop_closes_tunnels_with_1001_and_ends_with_0(docker_host: DockerHost) -> None:
    with docker_host.box() as box:
        box.wait_ready()
        async with box.tunnel() as tunnel:
            box.container.stop(timeout=30)
            await tunnel.closed()
        assert (tunnel.close_code, tunnel.close_reason) == (1001, "shutting down")
        state = box.state()
        assert (state["ExitCode"], state["OOMKilled"], state["Running"]) == (0, False, False)


def test_without_the_device_it_says_so_and_what_to_type(docker_host: DockerHost) -> None:
    with docker_host.box(devices=None) as box:
        wait_until(lambda: "/dev/net/tun" in box.get("/readyz")[1], "it has tried", 30)
        status, said = box.get("/readyz")
        assert status == 503
        assert said.startswith("/dev/net/tun is missing: ")
        (line,) = wait_until(lambda: box.events("tunnels cannot be made"), "the log says so")
        assert line["fix"] == "docker run --device /dev/net/tun …"
        status, said = box.run("aero-l2", "doctor")
        assert status == 1
        assert "docker run --device /dev/net/tun …" in said


def test_without_the_profile_it_says_so_and_what_to_type(docker_host: DockerHost) -> None:
    bare = [option for option in least_privilege()["security_opt"] if not option.startswith("seccomp=")]
    with docker_host.box(security_opt=bare) as box:
        assert box.wait_ended() == 2
        (line,) = box.log.splitlines()
        assert line.startswith(f"aero-l2: cannot make a user namespace as uid {UID}: ")
        assert "--security-opt seccomp=seccomp-aero.json" in line
    with docker_host.box(security_opt=bare, command=["doctor"]) as box:
        assert box.wait_ended() == 1
        assert "docker run --security-opt seccomp=seccomp-aero.json" in box.log


def test_root_without_capabilities_is_told_to_leave_the_user_alone(docker_host: DockerHost) -> None:
    with docker_host.box(user="0:0") as box:
        assert box.wait_ended() == 2
        (line,) = box.log.splitlines()
        assert "start as an ordinary user instead" in line


def test_image_holds_no_compiler_no_installer_and_no_secret_and_is_small(
    box: Box, docker_host: DockerHost
) -> None:
    programs = r"(gcc|cc|cc1|cpp|g\+\+|ld|as|make|pip|wheel|uv)[0-9.-]*"
    modules = r"(pip|setuptools|wheel|ensurepip|_distutils_hack)"
    files = r".*(\.whl|_Packages|_InRelease)"
    either = f".*/bin/{programs}|.*/lib/.*/{modules}|{files}"
    _, found = box.run("find", "/", "-xdev", "-regextype", "posix-extended", "-regex", either, "-print")
    assert [line for line in found.splitlines() if not line.startswith("find: ")] == []
    assert build.SECRET.encode() not in build.built_image().read_bytes()
    assert docker_host.image().attrs["Size"] < _SIZE_LIMIT


def test_profile_in_the_image_is_the_one_of_the_tree(box: Box) -> None:
    status, said = box.run("cat", "/usr/share/aero-l2/seccomp-aero.json")
    assert status == 0
    assert said == PROFILE.read_text()
