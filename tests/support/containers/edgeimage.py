"""The image of the TLS edge, on the same base as the proxy's: ``./dev image`` builds it, tests load it."""

import fcntl
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from support import images
from support.containers import build
from support.containers.engine import docker_daemon

TAG = "aero-l2-edge:test"
_FILES = ("Dockerfile", "nginx.conf", "start.sh")
_CONTEXT = images.REPOSITORY / "deploy/edge"


def image() -> Path:
    """Where the image of these very files is, or is going to be: an archive for ``docker load``."""
    hashed = hashlib.sha256(build.base().name.encode())
    for name in _FILES:
        hashed.update(hashlib.sha256((_CONTEXT / name).read_bytes()).digest())
    return build.CACHE / f"edge-{hashed.hexdigest()[:16]}.tar"


def built_image() -> Path:
    """The archive, which has to be there: the tests cannot build it, since they have no network."""
    path = image()
    assert path.is_file(), f"{path.name} is not in .cache/containers: ./dev image builds it"
    return path


def make() -> None:
    """Make it, on the base that is there, and remove older ones."""
    with (build.CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image().is_file():
            print("building the image of the edge", file=sys.stderr)
            _make(image())
        for path in build.CACHE.glob("edge-*.tar"):
            if path != image():
                path.unlink()


def _make(path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="aero-l2-build-"))
    try:
        options = ("--bridge=none", "--iptables=false", "--ip-masq=false")
        with docker_daemon(folder, options=options) as daemon:
            daemon.run("import", str(build.base()), build.BASE_TAG)
            command = ["build", "--network=host", "--build-arg", f"BASE_IMAGE={build.BASE_TAG}", "--tag", TAG]
            daemon.run(*command, str(_CONTEXT), environment={"DOCKER_BUILDKIT": "1"})
            new = path.with_name(f".new-{path.name}")
            daemon.run("save", "--output", str(new), TAG)
            new.rename(path)
    finally:
        shutil.rmtree(folder)
