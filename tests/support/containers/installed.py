"""The package on a machine: installed, configured as README.Debian says, and its service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support import addresses as at
from support.containers.machine import Machine
from support.tunnel import Tunnel
from support.wait import wait_until

SERVICE = "aero-l2.service"
SOCKET = "aero-l2.socket"
PORT = 8090
SETTINGS = "/etc/aero-l2/aero-l2.env"
CREDENTIALS = "/etc/aero-l2/credentials"
KEY = "a-key-0123456789abcdef-of-the-tests"
ORIGIN = "https://lab.example"
_FILLED_IN = {
    "AERO_L2_ALLOWED_ORIGINS": ORIGIN,
    "AERO_L2_ALLOWED_HOSTS": f"{at.LOOPBACK}:{PORT}",
    "AERO_L2_TRUSTED_PROXIES": at.LOOPBACK,
    "AERO_L2_DENIED_CIDRS": f"{at.HOST_PUBLIC},{at.HOST_PRIVATE}",
}


def install(machine: Machine) -> str:
    """Install the package, or install it again; what that prints."""
    return machine.run("dpkg", "--install", "--force-confold", "/srv/aero-l2.deb")


def is_active(machine: Machine) -> bool:
    """Whether the service runs."""
    return machine.attempt("systemctl", "is-active", SERVICE).stdout.strip() == "active"


def configure(machine: Machine) -> None:
    """Fill in what the package leaves open: the settings, the session secret, and an API key."""
    settings = machine.path(SETTINGS)
    lines = settings.read_text().splitlines()
    for number, line in enumerate(lines):
        name, _, value = line.removeprefix("#").partition("=")
        if value.startswith("FILL-IN"):
            lines[number] = f"{name}={_FILLED_IN[name]}"
        elif name == "AERO_L2_API_KEY_FILE":
            lines[number] = f"{name}={value}"
    settings.write_text("\n".join(lines) + "\n")
    for name, secret in (("session-secret", "s" * 43), ("api-key", KEY)):
        file = machine.path(f"{CREDENTIALS}/{name}")
        file.write_text(secret + "\n")
        file.chmod(0o600)


@contextmanager
def without_setting(machine: Machine, name: str) -> Iterator[None]:
    """The settings without one of them, for a while."""
    with _other_settings(machine, lambda line: "" if line.startswith(f"{name}=") else line):
        yield


@contextmanager
def with_setting(machine: Machine, name: str, value: str) -> Iterator[None]:
    """The settings with another one, for a while; the last line about it counts."""
    with _other_settings(machine, lambda line: line, f"{name}={value}\n"):
        yield


@contextmanager
def _other_settings(machine: Machine, each: Callable[[str], str], more: str = "") -> Iterator[None]:
    settings = machine.path(SETTINGS)
    before = settings.read_text()
    settings.write_text("".join(map(each, before.splitlines(True))) + more)
    try:
        yield
    finally:
        settings.write_text(before)


@contextmanager
def instead_of_serving(machine: Machine, command: str) -> Iterator[None]:
    """The service runs another program once, in everything else as its unit says."""
    drop_in = machine.path(f"/run/systemd/system/{SERVICE}.d/once.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(
        f"[Service]\nType=oneshot\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart={command}\n"
    )
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
        machine.run("systemctl", "daemon-reload")


def start(machine: Machine) -> None:
    """Start the service; systemctl waits until it is ready."""
    done = machine.attempt("systemctl", "start", SERVICE)
    assert done.returncode == 0, f"{done.stderr}\n{machine.journal(SERVICE)}"


def tunnel(machine: Machine) -> Tunnel:
    """A tunnel through the service, opened with the API key by a page that may."""
    return Tunnel(machine.host, PORT, headers={"Origin": ORIGIN}, credential=KEY)


def wait_ended(machine: Machine) -> None:
    """Wait until the service has no process left."""
    wait_until(lambda: not machine.pids(SERVICE), "the service has ended", 20)
