"""The house rules: what is shipped, what the documents promise, how the tree is kept."""

import ast
import asyncio
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.asyncio.server import ServerConnection, serve

import aero_l2
import netns
from aero_l2.config import VARIABLES, load, reference
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.reference import markdown as metrics_table
from aero_l2.session.closing import CLOSINGS

TREE = Path(__file__).parents[2]
PACKAGES = ("aero_l2", "netns", "slirp")
MODULE_LINES = 300

# What a build or a tool leaves in the tree, by .gitignore's own list.
LEFTOVERS = tuple(line.rstrip("/") for line in (TREE / ".gitignore").read_text().split())


def tree_files() -> Iterator[Path]:
    """Every file that belongs to the project, without asking git (a copy of the tree may have none)."""
    ignored = ignore_patterns(".git", *LEFTOVERS)
    pending = [TREE]
    while pending:
        folder = pending.pop()
        names = sorted(entry.name for entry in folder.iterdir())
        for name in sorted(set(names) - ignored(str(folder), names)):
            entry = folder / name
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            elif entry.is_file():
                yield entry


def own_modules() -> list[Path]:
    return sorted(
        path for path in tree_files() if path.suffix == ".py" and path.relative_to(TREE).parts[0] in PACKAGES
    )


def project_version() -> str:
    table = tomllib.loads((TREE / "pyproject.toml").read_text())
    return str(table["project"]["version"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of the tree, built from a copy: nothing stale goes in, nothing is left behind."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"):
        (source / name).write_bytes((TREE / name).read_bytes())
    for package in PACKAGES:
        copytree(TREE / package, source / package, ignore=ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(work)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(work.glob("*.whl")))


def test_wheel_holds_exactly_our_three_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert len(metadata) == 1
    assert tops - metadata == set(PACKAGES)


def test_wheel_holds_every_module(wheel: zipfile.ZipFile) -> None:
    missing = {str(path.relative_to(TREE)) for path in own_modules()} - set(wheel.namelist())
    assert not missing, "a folder without __init__.py is left out of the wheel"


def test_wheel_carries_both_licences_and_names_them(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(info))
    assert metadata["License-Expression"] == "MIT OR Apache-2.0"
    carried = {Path(name).name for name in wheel.namelist()}
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= carried


def test_netns_is_ours_and_not_another_distributions() -> None:
    assert netns.__file__ is not None
    assert Path(netns.__file__).parent == TREE / "netns"


def test_versions_agree() -> None:
    assert version("aero-l2") == aero_l2.__version__ == project_version()
    heading = re.search(r"^## (\d+\.\d+\.\d+)", (TREE / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == project_version(), "the newest entry of CHANGELOG.md is another version"


def test_licence_texts_are_there() -> None:
    assert "Permission is hereby granted, free of charge" in (TREE / "LICENSE-MIT").read_text()
    assert "Version 2.0, January 2004" in (TREE / "LICENSE-APACHE").read_text()


def test_readme_opens_with_the_two_commands() -> None:
    opening = (TREE / "README.md").read_text().splitlines()[:12]
    block = [line.split("#")[0].strip() for line in opening]
    assert "./dev run" in block
    assert "./dev test" in block


@pytest.mark.parametrize("script", ["dev"])
def test_shell_scripts_parse(script: str) -> None:
    done = subprocess.run(["sh", "-n", script], cwd=TREE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ("fast", "test", "dev")), ("bench/requirements.lock", ("bench",))],
)
def test_lock_pins_everything_by_hash_and_names_no_place(lock: str, extras: tuple[str, ...]) -> None:
    lines = (TREE / lock).read_text().splitlines()
    pins = [line for line in lines if not line.startswith(" ")]
    assert all(re.match(r"[a-z0-9.-]+==\S+ (; .+ )?\\$", line) for line in pins), pins
    hashes = [line for line in lines if line.startswith(" ")]
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    declared = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    wanted = [
        *declared["dependencies"],
        *chain.from_iterable(declared["optional-dependencies"][e] for e in extras),
    ]
    pinned = {line.split("==")[0] for line in pins}
    assert {re.split(r"[<>=~!\[; ]", need)[0] for need in wanted} <= pinned, "run ./dev lock"


def test_every_extra_is_in_a_lock() -> None:
    declared = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(declared) == {"fast", "test", "dev", "bench"}


def test_nothing_names_a_workplace() -> None:
    """Paths of the machine a line was written on: they mean nothing to whoever reads it."""
    # Written in two parts, or this very file would be the one found.
    workplace = re.compile(r"(?<![\w.$}/-])/(?:wo" r"rk|ro" r"ot|home/[a-z]\w*)/")
    found = []
    for path in tree_files():
        text = path.read_bytes()
        if b"\0" in text:
            continue
        for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
            if workplace.search(line):
                found.append(f"{path.relative_to(TREE)}:{number}: {line.strip()}")
    assert not found


@pytest.mark.parametrize("module", own_modules(), ids=lambda path: str(path.relative_to(TREE)))
def test_modules_stay_short(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MODULE_LINES


def test_every_test_file_is_run_by_a_command() -> None:
    """What ./dev test collects, or what ./dev interop names."""
    collected = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"][
        "testpaths"
    ]
    files = {str(path.relative_to(TREE)) for path in tree_files() if re.match(r"test_\w+\.py$", path.name)}
    left = {file for file in files if not file.startswith(tuple(f"{folder}/" for folder in collected))}
    assert left == {"tests/interop/test_gvisor.py", "tests/interop/test_smoltcp.py"}


def test_no_test_is_skipped() -> None:
    """A test that is not run promises nothing; what cannot run here fails, and says why."""
    found = []
    for path in tree_files():
        if path.suffix != ".py" or path.relative_to(TREE).parts[0] != "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or (node.name if isinstance(node, ast.alias) else "")
            if re.fullmatch(r"(import_?or_?)?skip(_?if|_?test)?|xfail", name, re.IGNORECASE):
                found.append(f"{path.relative_to(TREE)}:{node.lineno}: {name}")
    assert not found


def table_rows(first_heading: str) -> list[str]:
    """The rows of docs/SPECIFICATION.md's tables whose first column is headed so."""
    rows: list[str] = []
    heading = ""
    for line in (TREE / "docs/SPECIFICATION.md").read_text().splitlines():
        if not line.startswith("|"):
            heading = ""
        elif not heading:
            heading = line
        elif heading.startswith(f"| {first_heading}") and not line.startswith("|-"):
            rows.append(line)
    return rows


def promised_tests() -> list[str]:
    """The test ids those rows name, `tests/…py::name` each."""
    return sorted({found for row in table_rows("promise") for found in re.findall(r"`(tests/[^`]+)`", row)})


def defined_tests(path: Path) -> set[str]:
    """Names of the test functions of one file, methods as Class::name."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, functions)}
    return names


@pytest.mark.parametrize("test_id", promised_tests())
def test_promised_tests_exist(test_id: str) -> None:
    file, _, name = test_id.partition("::")
    path = TREE / file
    assert path.is_file(), f"{file} does not exist"
    assert name in defined_tests(path), f"{file} has no test {name}"


def test_every_promise_names_its_test() -> None:
    bare = [row for row in table_rows("promise") if not re.search(r"`tests/[^`]+::test_\w+`", row)]
    assert not bare


def test_settings_are_documented() -> None:
    """The tables of docs/settings.md are what the program is made of: `aero-l2 settings --markdown`."""
    assert (TREE / "docs/settings.md").read_text().endswith("\n" + reference.markdown())
    assert all(reference.row(variable) in reference.markdown() for variable in VARIABLES)


def test_metrics_are_documented() -> None:
    """The table of docs/metrics.md is what the program exposes; the specification names no other metric."""
    assert (TREE / "docs/metrics.md").read_text().endswith("\n" + metrics_table())
    names = {family.name for family in Metrics().registry.collect()}
    text = (TREE / "docs/SPECIFICATION.md").read_text() + (TREE / "docs/capacity.md").read_text()
    said = {name.removesuffix("_total") for name in re.findall(r"`((?:aero_)?l2_[a-z0-9_]+)[`{]", text)}
    assert said <= names


def test_every_metric_is_moved_by_the_program() -> None:
    """Outside of where it is declared; those that sum others up move with them."""
    sources = "".join(
        path.read_text() for path in own_modules() if TREE / "aero_l2/observe/metrics" not in path.parents
    )
    used = set(re.findall(r"metrics\.(\w+)", sources))
    used |= set(re.findall(r'"(\w+)"', (TREE / "aero_l2/door/handshake.py").read_text()))  # by getattr
    used |= {closing.metric for closing in CLOSINGS.values() if closing.metric is not None}
    used |= {"netd_requests", "netd_request_seconds"} if "metrics.netd_request" in sources else set()
    used |= {"build_info"} if "metrics.describe_build" in sources else set()
    declared = set(vars(Metrics())) - {"registry", "is_on"}
    assert declared <= used


def test_readme_serves_with_settings_that_are_accepted(tmp_path: Path) -> None:
    """What README.md exports before it starts the program is a configuration, secrets from files included."""
    (tmp_path / "key").write_text("a-key-0123456789abcdef")
    blocks = re.findall(r"^```sh\n(.*?)^```", (TREE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    served = [block for block in blocks if "aero-l2 serve" in block]
    assert served
    for block in served:
        words = re.findall(r"^export (.*?)(?: +#.*)?$", block, re.MULTILINE)
        settings = dict(word.split("=", 1) for line in words for word in line.split())
        given = {n: str(tmp_path / "key") if n.endswith("_FILE") else value for n, value in settings.items()}
        assert not load(given).warnings


def test_record_numbers_are_unique_and_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (TREE / "docs/adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    "page", sorted(path for path in tree_files() if path.suffix == ".md"), ids=lambda path: path.name
)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


async def test_python_sketch_of_the_protocol_works() -> None:
    """The client in docs/protocol.md sends what it is given, answers a PING and hands frames over."""
    sketch = re.search(r"```python\n(.*?)```", (TREE / "docs/protocol.md").read_text(), re.DOTALL)
    assert sketch is not None
    names: dict[str, Any] = {}
    exec(sketch[1], names)
    seen: list[bytes | str] = []

    async def lan(connection: ServerConnection) -> None:
        seen.append(await connection.recv())
        await connection.send(b"\xa2\x03\x01\x00abcd")
        seen.append(await connection.recv())
        await connection.send(b"\xa2\x03\x00\x00to the guest")

    async with serve(lan, "127.0.0.1", 0, subprotocols=[Subprotocol("aero-l2-tunnel-v1")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/l2"
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        frames.put_nowait(b"from the guest")
        await asyncio.wait_for(names["tunnel"](url, "http://page.example", frames, seen.append), 10)
    assert seen == [b"\xa2\x03\x00\x00from the guest", b"\xa2\x03\x02\x00abcd", b"to the guest"]
