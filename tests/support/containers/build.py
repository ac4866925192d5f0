"""The image of this tree, made by Debian's Docker on a base made by mmdebstrap: ``./dev image``.

Only here is the network used, for packages by name: Debian's and PyPI's. The tests, which have none, load
what is in .cache/containers. Both files there are named by what they were made of.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import images
from support.containers.engine import Daemon, docker_daemon

TAG = "aero-l2:test"
BASE_TAG = "aero-l2-base:test"
GIT_SHA = "0123456789abcdef0123456789abcdef01234567"
VERSION = "0.1.0-test"
BUILD_TIMESTAMP = "2026-01-02T03:04:05Z"
"""What the image's /version has to say."""
SECRET = "nobody-finds-this-5f0c2d7e"
"""In what pip is given; not to be found in the image."""
CACHE = images.REPOSITORY / ".cache/containers"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_MIRROR = "http://deb.debian.org/debian"
_SOURCES = (
    f"deb {_MIRROR} bookworm main",
    f"deb {_MIRROR} bookworm-updates main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
)
# What Debian's own slim images are: /usr merged from the start, which needs no Perl, and no documentation.
_BASE_OPTIONS = (
    "--variant=minbase",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--include=usr-is-merged",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
)
_CONTEXT = (
    "Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE",
    "requirements.lock", "deploy/requirements.lock", "deploy/seccomp-aero.json",
)  # fmt: skip
_PACKAGES = ("aero_l2", "netns", "slirp")


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def base() -> Path:
    """Where the base is, or is going to be."""
    return CACHE / f"base-{_digest(*(word.encode() for word in (*_SOURCES, *_BASE_OPTIONS)))}.tar"


def sources() -> Iterator[Path]:
    """What the image is made of, of this tree."""
    for name in _CONTEXT:
        yield images.REPOSITORY / name
    for package in _PACKAGES:
        yield from sorted((images.REPOSITORY / package).rglob("*.py"))


def image() -> Path:
    """Where the image of this very tree is, or is going to be: an archive for ``docker load``."""
    parts = [part for path in sources() for part in (str(path).encode(), path.read_bytes())]
    return CACHE / f"image-{_digest(base().name.encode(), *parts, VERSION.encode(), GIT_SHA.encode())}.tar"


def built_image() -> Path:
    """The archive, which has to be there: the tests cannot build it, since they have no network."""
    path = image()
    assert path.is_file(), f"{path.name} is not in .cache/containers: ./dev image builds it"
    return path


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes ``path`` if the block succeeds."""
    new = path.with_name(f".new-{path.name}-{os.getpid()}")
    try:
        yield new
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def _make_base(path: Path) -> None:
    with _new(path) as new:
        command = ["mmdebstrap", "--quiet", "--format=tar", *_BASE_OPTIONS, "bookworm", str(new), *_SOURCES]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode}\n{done.stderr}"


def secrets(folder: Path) -> list[str]:
    """Options for what pip needs on this machine: its authorities if it has any, and a pip.conf."""
    index = os.environ.get("PIP_INDEX_URL")
    (folder / "pip.conf").write_text(f"[global]\n# {SECRET}\n{f'index-url = {index}' if index else ''}\n")
    options = ["--secret", f"id=pip,src={folder / 'pip.conf'}"]
    authorities = Path(os.environ.get("PIP_CERT", _AUTHORITIES))
    if authorities.is_file():
        options += ["--secret", f"id=ca,src={authorities}"]
    return options


def _make_image(path: Path, folder: Path, daemon: Daemon) -> None:
    daemon.run("import", str(base()), BASE_TAG)
    given = {
        "BASE_IMAGE": BASE_TAG, "VERSION": VERSION, "GIT_SHA": GIT_SHA, "BUILD_TIMESTAMP": BUILD_TIMESTAMP
    }  # fmt: skip
    arguments = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    command = ["build", "--network=host", "--progress=plain", *arguments, *secrets(folder)]
    daemon.run(*command, "--tag", TAG, str(images.REPOSITORY), environment={"DOCKER_BUILDKIT": "1"})
    with _new(path) as new:
        daemon.run("save", "--output", str(new), TAG)


def _remove_stale(*wanted: Path) -> None:
    for kind in ("base", "image"):
        for path in CACHE.glob(f"{kind}-*.tar"):
            if path not in wanted:
                path.unlink()


def build() -> None:
    """Make what is missing; at most one process at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base().is_file():
            print("making a base with mmdebstrap", file=sys.stderr)
            _make_base(base())
        if not image().is_file():
            print("building the image", file=sys.stderr)
            folder = Path(tempfile.mkdtemp(prefix="aero-l2-build-"))
            try:
                with docker_daemon(
                    folder, options=("--bridge=none", "--iptables=false", "--ip-masq=false")
                ) as daemon:
                    _make_image(image(), folder, daemon)
            finally:
                shutil.rmtree(folder)
        _remove_stale(base(), image())


if __name__ == "__main__":
    from support.containers import edgeimage  # which takes the base from here

    build()
    edgeimage.make()
