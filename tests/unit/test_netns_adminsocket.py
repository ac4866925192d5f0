"""The admin socket's file: whose it is, what it replaces, and what it leaves alone. Run as root."""

import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from netns import adminsocket
from netns.adminsocket import AdminSocket, make
from netns.errors import LaunchError

SERVICE = pwd.struct_passwd(("service", "x", 61234, 61234, "", "/", "/"))
OTHER_UID = 61235


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def about(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    assert stat.S_ISSOCK(found.st_mode)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def closed(made: AdminSocket) -> None:
    made.remove()
    made._listener.close()
    os.close(made._file)
    os.close(made._folder)


@pytest.mark.parametrize("user", [None, SERVICE], ids=["ourselves", "the service user"])
def test_socket_is_private_from_its_first_moment(
    folder: Path, user: pwd.struct_passwd | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            super().bind(address)
            seen.append(stat.S_IMODE(os.lstat(address).st_mode))

    monkeypatch.setattr(adminsocket.socket, "socket", Watched)
    mask = os.umask(0)
    try:
        made = make(str(folder / "admin.sock"), user)
    finally:
        os.umask(mask)
    assert seen == [0o600]
    uid = 61234 if user else os.getuid()
    assert about(folder / "admin.sock") == (0o600, uid, uid)
    assert os.geteuid() == 0
    closed(made)
    assert not (folder / "admin.sock").exists()


def test_missing_folder_is_made_for_the_service_user_alone(folder: Path) -> None:
    closed(make(str(folder / "run/admin.sock"), SERVICE))
    assert (folder / "run").stat().st_uid == 61234
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700


def test_folder_of_the_service_user_is_used_as_that_user(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    os.chown(folder / "run", 61234, 61234)
    made = make(str(folder / "run/admin.sock"), SERVICE)
    assert about(folder / "run/admin.sock") == (0o600, 61234, 61234)
    closed(made)


def test_root_makes_nothing_where_another_user_could_replace_it(folder: Path) -> None:
    (folder / "theirs").mkdir(mode=0o755)
    os.chown(folder / "theirs", OTHER_UID, OTHER_UID)
    (folder / "link").symlink_to(folder / "theirs")
    for way in ("theirs", "theirs/deeper", "link"):
        with pytest.raises(LaunchError, match=r"AERO_L2_ADMIN_SOCKET=.*Permission denied"):
            make(str(folder / way / "admin.sock"), SERVICE)
    assert list((folder / "theirs").iterdir()) == []


def test_socket_that_nobody_listens_on_is_replaced(folder: Path) -> None:
    path = folder / "admin.sock"
    left = make(str(path), SERVICE)
    left._listener.close()
    made = make(str(path), SERVICE)
    left.remove()  # it is another one now
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    closed(made)


def test_socket_that_somebody_listens_on_stays(folder: Path) -> None:
    path = folder / "admin.sock"
    first = make(str(path), None)
    with pytest.raises(LaunchError, match="another program answers there"):
        make(str(path), None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    closed(first)


def test_what_is_no_socket_of_ours_stays(folder: Path) -> None:
    (folder / "file").write_text("mine")
    with pytest.raises(LaunchError, match="is no socket"):
        make(str(folder / "file"), SERVICE)
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(LaunchError, match="is no socket"):
        make(str(folder / "link"), SERVICE)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(folder / "theirs"))
    os.chown(folder / "theirs", OTHER_UID, OTHER_UID)
    with pytest.raises(LaunchError, match=f"a socket of uid {OTHER_UID}"):
        make(str(folder / "theirs"), SERVICE)
    assert {entry.name for entry in folder.iterdir()} == {"file", "link", "theirs"}


def test_two_that_start_at_once_do_not_take_each_others_socket(folder: Path) -> None:
    """Each takes a socket for left over only while nobody else is about to listen on it."""
    program = (
        "import os, sys; from netns.adminsocket import make; from netns.errors import LaunchError\n"
        "try: made = make(sys.argv[1], None)\n"
        "except LaunchError: sys.exit(3)\n"
        "print('made', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(folder / "admin.sock")]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    said = [process.stdout.readline() for process in running if process.stdout is not None]
    assert said.count("made\n") == 1
    for process in running:
        process.communicate()
