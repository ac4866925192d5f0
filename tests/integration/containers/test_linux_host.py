"""The Debian package on a machine with systemd: installed, configured, serving, upgraded, removed, purged.

The machine is namespaces of this kernel with the distribution's systemd as process 1, so the unit's sandbox
is what systemd makes of it, and not what a test believes that it makes.
"""

import asyncio
import http.client
import os
import re
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.containers import installed
from support.containers.installed import PORT, SERVICE, SETTINGS, SOCKET
from support.containers.machine import Machine, package
from support.containers.machine import machine as boot
from support.nsguest import ns_guest
from support.tunnel import RefusedError
from support.wait import until, wait_until
from support.world import World

pytestmark = pytest.mark.slow
_PAGE = Path(__file__).resolve().parents[3] / "docs/linux-host.md"
# What Debian keeps of a package that is gone: files of accounts, and what dpkg and the journal wrote down.
_KEPT = re.compile(
    r"/etc/((passwd|group|shadow|gshadow|subuid|subgid)-?|\.pwd\.lock)"
    r"|/var/log/(dpkg\.log|journal/.*)|/var/lib/dpkg/.*|/var/lib/systemd/timers/.*"
)


_METRICS = (
    "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9190/metrics').read().decode())"
)


@pytest.fixture(scope="module")
def machine(world: World) -> Iterator[Machine]:
    with boot(world.host, world.resolv_conf) as booted:
        yield booted


@pytest.fixture(scope="module")
def files_before(machine: Machine) -> set[str]:
    return _files(machine)


@pytest.fixture(scope="module")
def said(machine: Machine, files_before: set[str]) -> str:
    """What the installation printed."""
    return installed.install(machine)


@pytest.fixture(scope="module")
def service(machine: Machine, said: str) -> Machine:
    """Configured, and not started yet."""
    installed.configure(machine)
    return machine


@pytest.fixture
def serving(service: Machine) -> Iterator[Machine]:
    """The service as it is after an ordinary start."""
    installed.start(service)
    yield service
    service.attempt("systemctl", "stop", SOCKET, SERVICE)  # which a test may have removed
    installed.wait_ended(service)


def _files(machine: Machine) -> set[str]:
    found = machine.run("find", "/", "-xdev", "-not", "-type", "s").splitlines()
    return {path for path in found if not _KEPT.fullmatch(path)}


def test_installation_starts_nothing_and_says_what_to_do(machine: Machine, said: str) -> None:
    assert f"fill in {SETTINGS} first" in said
    assert machine.attempt("systemctl", "is-enabled", SERVICE).stdout.strip() == "disabled"
    assert machine.attempt("systemctl", "is-enabled", SOCKET).stdout.strip() == "disabled"
    assert not installed.is_active(machine)
    assert machine.run("aero-l2", "--version").split()[0] == "aero-l2"
    account = machine.run("getent", "passwd", "aero-l2").strip().split(":")
    assert 0 < int(account[2]) < 1000
    assert account[6].endswith("nologin")
    for path, mode in ((SETTINGS, 0o640), (installed.CREDENTIALS, 0o700)):
        status = machine.path(path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 0, 0)


def test_service_that_is_not_configured_says_what_is_left(machine: Machine, said: str) -> None:
    if "FILL-IN" not in machine.path(SETTINGS).read_text():
        pytest.fail("this test comes before the ones that configure the service")
    assert machine.attempt("systemctl", "start", SERVICE).returncode != 0
    log = machine.journal(SERVICE)
    for name in ("AERO_L2_ALLOWED_ORIGINS", "AERO_L2_TRUSTED_PROXIES", "AERO_L2_DENIED_CIDRS"):
        assert f"aero-l2: {name}" in log, log
    assert "AERO_L2_SESSION_SECRET_FILE" in log
    shown = machine.run("systemctl", "show", "--property=NRestarts,ExecMainStatus", SERVICE)
    assert set(shown.split()) == {"NRestarts=0", "ExecMainStatus=2"}
    machine.run("systemctl", "reset-failed", SERVICE)


async def test_guest_gets_its_lease_names_and_pages(serving: Machine) -> None:
    async with installed.tunnel(serving) as tunnel, ns_guest(tunnel, static=False) as guest:
        await guest.lease()
        assert f"inet {at.GUEST}/24" in guest.namespace.run("ip", "address", "show", "dev", "eth0")
        page = await guest.run("curl", "-sS", "--max-time", "20", "http://web.example.test/hello")
        assert page == at.HELLO
        refused = await guest.attempt("curl", "-sS", "--max-time", "20", f"http://{at.HOST_PUBLIC}:{PORT}/")
        assert refused[0] == 7, refused
        await until(lambda: "1 tunnel" in _status(serving), "systemd knows of the tunnel")
    audit = serving.path("/var/log/aero-l2/audit.log")
    await until(lambda: at.WEB in audit.read_text(), "the audit log has its connection")


def _status(machine: Machine) -> str:
    return machine.run("systemctl", "show", "--property=StatusText", "--value", SERVICE).strip()


async def test_nothing_of_it_has_a_privilege(serving: Machine) -> None:
    user = int(serving.run("id", "-u", "aero-l2"))
    async with installed.tunnel(serving) as tunnel:
        await tunnel.ping(b"there")
        found = {pid: procfs.status(pid) for pid in serving.pids(SERVICE)}
        names = sorted(about["Name"] for about in found.values())
        assert names == ["aero-l2", "aero-l2-netd", "aero-l2-server", "slirp4netns"]
        for pid, about in found.items():
            assert set(about["Uid"].split()) == {str(user)}, about
            assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2"), about
            assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
            bounding = {"aero-l2-server": 0}.get(about["Name"])
            assert bounding is None or int(about["CapBnd"], 16) == bounding
        server = next(pid for pid, about in found.items() if about["Name"] == "aero-l2-server")
        roots = _options_of_roots(server)
        assert roots
        assert all("ro" in options.split(",") for options in roots), roots


def _options_of_roots(pid: int) -> list[str]:
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line.split()[5] for line in mounts if line.split()[4] == "/"]


def test_only_its_device_can_be_opened(serving: Machine) -> None:
    """From a process of root's in the service's control group: what bounds devices is no file's mode."""
    for name, numbers in (("kmsg", (1, 11)), ("other-tun", (10, 200)), ("fuse", (10, 229))):
        path = serving.path(f"/dev/{name}")
        if not path.exists():
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*numbers))
    opened = {name: _opens(serving, f"/dev/{name}") for name in ("kmsg", "other-tun", "fuse", "net/tun")}
    assert opened == {"kmsg": False, "other-tun": True, "fuse": False, "net/tun": True}


def _opens(machine: Machine, path: str) -> bool:
    group = machine.group / "system.slice" / SERVICE / "cgroup.procs"
    script = 'echo $$ >"$1" && exec python3 -c "import os, sys; os.open(sys.argv[1], os.O_RDWR)" "$2"'
    inside = str(machine.path(path))
    done = subprocess.run(["sh", "-euc", script, "sh", str(group), inside], capture_output=True, text=True)
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def test_device_of_the_services_group_is_enough(service: Machine) -> None:
    """For hosts whose administrator closed it to everybody else."""
    service.run("chown", "root:aero-l2", "/dev/net/tun")
    service.run("chmod", "0660", "/dev/net/tun")
    try:
        installed.start(service)
    finally:
        service.run("chown", "root:root", "/dev/net/tun")
        service.run("chmod", "0666", "/dev/net/tun")
    service.run("systemctl", "stop", SERVICE)


def test_server_sees_all_its_processes_and_what_the_host_has_left(serving: Machine) -> None:
    """What the alerts and the limits go by, and what hidden parts of /proc would take away."""
    text = serving.run("python3", "-c", _METRICS)
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("", "#"))
    for process in ("launch", "netd", "server"):
        assert float(series[f'aero_l2_process_open_fds{{process="{process}"}}']) > 0
    for limit in ("files", "memory", "ports", "tcp"):
        assert float(series[f'aero_l2_capacity_max{{limit="{limit}"}}']) < float("inf")


def test_doctor_in_the_services_place_finds_no_problem(service: Machine) -> None:
    """With every directive of the unit: only the program is another one."""
    with installed.instead_of_serving(service, "/usr/bin/aero-l2 doctor"):
        done = service.attempt("systemctl", "start", SERVICE)
        report = service.journal(SERVICE).rpartition("Starting aero-l2.service")[2]
    assert done.returncode == 0, report
    assert re.search(r"^ok +session ", report, re.MULTILINE), report
    assert not re.search(r"^problem ", report, re.MULTILINE), report


def test_documented_look_as_root_works(service: Machine) -> None:
    """The block of docs/linux-host.md, as it stands there, while the service does not run."""
    block = re.search(r"```sh\n(set -a.*?)```", _PAGE.read_text(), re.DOTALL)
    assert block is not None
    said = service.run("sh", "-euc", block[1])
    assert re.search(r"AERO_L2_ALLOWED_ORIGINS +https://lab.example", said), said
    assert re.search(r"^ok +session ", said, re.MULTILINE), said


async def test_connection_that_hoards_memory_is_reset_and_its_tunnel_stays(service: Machine) -> None:
    """The helper takes a descriptor of the NAT process for that (pidfd_getfd), which filters often forbid."""
    with installed.with_setting(service, "AERO_L2_MAX_TCP_MEMORY_BYTES", "1048576"):
        installed.start(service)
        async with installed.tunnel(service) as tunnel, ns_guest(tunnel) as guest:
            slow = ("curl", "-sS", "--limit-rate", "1", "-o", "/dev/null", f"http://{at.WEB}/16MiB")
            hoards = [asyncio.create_task(guest.attempt(*slow)) for _ in range(4)]
            await until(lambda: '"connections reset"' in service.journal(SERVICE), "they are reset", 50)
            for hoard in hoards:
                hoard.cancel()
            await asyncio.gather(*hoards, return_exceptions=True)
            await tunnel.ping(b"still there")
        service.run("systemctl", "stop", SERVICE)


async def test_secret_in_a_file_of_the_group_is_re_read(service: Machine) -> None:
    file = service.path("/etc/aero-l2/api-key")
    file.write_text("x" * 30)
    service.run("chown", "root:aero-l2", "/etc/aero-l2/api-key")
    service.run("chmod", "0640", "/etc/aero-l2/api-key")
    with installed.with_setting(service, "AERO_L2_API_KEY_FILE", "/etc/aero-l2/api-key"):
        installed.start(service)
        with pytest.raises(RefusedError, match="401"):
            async with installed.tunnel(service):
                pass
        file.write_text(installed.KEY)
        await asyncio.to_thread(_reload, service)
        async with installed.tunnel(service) as tunnel:
            await tunnel.ping(b"there")
        service.run("systemctl", "stop", SERVICE)
    file.unlink()


def _reload(machine: Machine) -> None:
    before = machine.journal(SERVICE).count("settings reloaded")
    machine.run("systemctl", "reload", SERVICE)
    wait_until(lambda: machine.journal(SERVICE).count("settings reloaded") > before, "it has reloaded")


def test_top_and_admin_reach_it_as_root(serving: Machine) -> None:
    assert '"sessions"' in serving.run("aero-l2", "admin", "sessions")
    socket = serving.path("/run/aero-l2/admin.sock")
    assert stat.S_IMODE(socket.lstat().st_mode) == 0o600


async def test_stop_closes_tunnels_with_1001_and_succeeds(serving: Machine) -> None:
    async with installed.tunnel(serving) as tunnel:
        await asyncio.to_thread(serving.run, "systemctl", "stop", SERVICE)
        assert await tunnel.closed() == (1001, "shutting down")
    shown = serving.run("systemctl", "show", "--property=Result,ExecMainStatus", SERVICE)
    assert set(shown.split()) == {"Result=success", "ExecMainStatus=0"}
    assert not serving.path("/run/aero-l2").exists()


def test_killed_service_is_started_again(serving: Machine) -> None:
    before = serving.main(SERVICE)
    serving.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal.SIGKILL}", SERVICE)
    wait_until(lambda: serving.main(SERVICE) not in (0, before), "another one runs", 20)
    wait_until(lambda: installed.is_active(serving), "it is ready", 20)


async def test_first_client_starts_it_by_its_socket(service: Machine) -> None:
    with installed.without_setting(service, "AERO_L2_PROXY_LISTEN_ADDR"):
        service.run("systemctl", "start", SOCKET)
        assert not installed.is_active(service)
        async with installed.tunnel(service) as tunnel:
            await tunnel.ping(b"there")
        assert installed.is_active(service)
        assert "AERO_L2_PROXY_LISTEN_ADDR" not in service.journal(SERVICE).rpartition('"listening"')[2]
        service.run("systemctl", "stop", SOCKET, SERVICE)
    installed.wait_ended(service)


def test_restart_behind_its_socket_loses_nobody(service: Machine) -> None:
    with installed.without_setting(service, "AERO_L2_PROXY_LISTEN_ADDR"):
        service.run("systemctl", "start", SOCKET, SERVICE)
        before = service.main(SERVICE)
        restart = threading.Thread(target=service.run, args=("systemctl", "restart", SERVICE))
        restart.start()
        asked = 0
        while restart.is_alive() or not asked:
            assert _health(service) == 200
            asked += 1
        restart.join()
        assert service.main(SERVICE) not in (0, before)
        service.run("systemctl", "stop", SOCKET, SERVICE)
    installed.wait_ended(service)


def _health(machine: Machine) -> int:
    connection = http.client.HTTPConnection(at.LOOPBACK, PORT)
    connection.sock = machine.host.connect(at.LOOPBACK, PORT, timeout_s=20)
    connection.sock.settimeout(20)
    try:
        connection.request("GET", "/healthz", headers={"Host": "lab.example"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_upgrade_restarts_what_runs_and_keeps_the_settings(serving: Machine) -> None:
    before, settings = serving.main(SERVICE), serving.path(SETTINGS).read_text()
    installed.install(serving)
    wait_until(lambda: serving.main(SERVICE) not in (0, before), "the new version runs", 20)
    assert serving.path(SETTINGS).read_text() == settings


def test_removal_stops_it_and_purge_leaves_nothing(serving: Machine, files_before: set[str]) -> None:
    for folder in ("lib", "log"):
        serving.path(f"/var/{folder}/aero-l2/left").write_text("of a guest")
    serving.run("dpkg", "--remove", "aero-l2")
    installed.wait_ended(serving)
    assert serving.path(SETTINGS).exists()
    assert serving.path("/var/lib/aero-l2/left").exists()
    assert not serving.path("/usr/lib/aero-l2").exists()
    serving.run("dpkg", "--purge", "aero-l2")
    assert _files(serving) == files_before
    account = serving.run("getent", "shadow", "aero-l2").split(":")
    assert account[1].startswith("!")
    user = serving.run("id", "-u", "aero-l2").strip()
    assert user not in {
        procfs.status(pid).get("Uid", "").split("\t")[0] for pid in procfs.descendants(serving.first)
    }


def test_package_is_as_debian_wants_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on=error,warning", "--tag-display-limit=0", "--allow-root", str(package())],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
