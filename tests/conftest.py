"""Fixtures of every test that needs namespaces: the closed world, and the real proxy in it, as root and as
a user."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support.proxy import Proxy, RunAs, run_proxy
from support.world import World
from support.world import world as build_world

# What a shell starts with & has both ignored, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# A test here shares its cores with others, so how long one example takes says nothing.
hypothesis.settings.register_profile("side by side", deadline=None)
hypothesis.settings.load_profile("side by side")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--proxy-as``: half of the runs, for a quick look."""
    parser.addoption("--proxy-as", choices=["root", "user"], help="run the proxy as this only, not as both")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--proxy-as`` does not ask for."""
    wanted = config.getoption("--proxy-as")
    if wanted is None:
        return
    left_out = [item for item in items if _proxy_as(item) not in (None, wanted)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _proxy_as(item: pytest.Item) -> str | None:
    """Who starts the proxy of a test; None where there is no choice."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("proxy_as") if callspec is not None else None


@pytest.fixture(scope="session", autouse=True)
def reachable_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let an ordinary user through to the temporary folders: pytest, and each worker, closes its own."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if folder.owner() == "root" and folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Host, internet and a third machine; needs root."""
    assert os.geteuid() == 0, "these tests make namespaces: run them as root (./dev test)"
    with build_world(tmp_path_factory.mktemp("world")) as built:
        yield built


@pytest.fixture(scope="session", params=["root", "user"])
def proxy_as(request: pytest.FixtureRequest) -> RunAs:
    """Who starts the proxy: every test that asks for it runs once for each."""
    return "root" if request.param == "root" else "user"


@pytest.fixture(scope="session")
def shared_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """One proxy with the defaults, for all tests that leave it as they found it."""
    with run_proxy(world, proxy_as) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy: Proxy) -> Proxy:
    """The shared proxy, alive and without earlier tunnels: a failure is blamed on the right test."""
    assert shared_proxy.is_running(), shared_proxy.log
    shared_proxy.wait_settled()
    return shared_proxy


@pytest.fixture
def own_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy of the test's own, which it may harm."""
    with run_proxy(world, proxy_as) as proxy:
        yield proxy


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory and in it a file that belongs to root, readable by all and writable by none but root."""
    file = tmp_path / "owned-by-root"
    file.write_text("untouched\n")
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    return file
