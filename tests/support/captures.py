"""What tests of captures share: a proxy that captures, its files, and the programs that read them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scapy.utils import PcapNgReader

from support import pcapng
from support.proxy import Proxy, RunAs, run_proxy
from support.wait import until
from support.world import World

DIRECTORY = "AERO_L2_CAPTURE_DIR"
NAME = re.compile(r"[0-9]{13}-session-([0-9]+)\.pcapng")
FRAME = bytes.fromhex("ffffffffffff02000000000f88b5")  # IEEE 802 local experimental: nobody answers
SOON_S = 30.0


def files(folder: Path) -> list[Path]:
    """Captures, oldest first."""
    return [folder / name for name in sorted(os.listdir(folder)) if NAME.fullmatch(name)]


@contextmanager
def capturing(world: World, run_as: RunAs, folder: Path, **env: str) -> Iterator[Proxy]:
    with run_proxy(world, run_as, {DIRECTORY: str(folder), **env}) as proxy:
        yield proxy


def mode_and_owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid


def so_far(folder: Path) -> pcapng.Contents:
    """What is in the only capture, which is being written."""
    found = files(folder)
    assert len(found) < 2
    return pcapng.read(found[0], cut_short=True) if found else pcapng.Contents()


def finished(path: Path) -> bool:
    """Whether a capture has been closed: statistics are the last that is written."""
    return pcapng.read(path, cut_short=True).statistics is not None


async def closed(folder: Path, count: int = 1) -> list[Path]:
    """So many captures, all closed."""
    await until(lambda: len(files(folder)) == count and all(map(finished, files(folder))), "closed", SOON_S)
    return files(folder)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "cut short" not in done.stderr, done.stderr
    return done.stdout


def tshark(path: Path, *fields: str, only: str = "") -> list[list[str]]:
    """Fields of each packet."""
    wanted = [word for field in fields for word in ("-e", field)]
    out = run("tshark", "-n", "-r", str(path), "-T", "fields", *wanted, *(["-Y", only] if only else []))
    return [line.split("\t") for line in out.splitlines()]


def check_with_others(path: Path, packets: int) -> None:
    """tshark, capinfos and scapy agree on how many packets there are, and none is malformed."""
    told = dict(re.findall(r"^(.*?)\s*[:=] +(.*)$", run("capinfos", str(path)), re.MULTILINE))
    assert int(told["Number of packets"].split()[0]) == packets
    assert told["File type"].startswith("Wireshark/... - pcapng")
    assert "nanoseconds" in told["File timestamp precision"]
    rows = tshark(path, "frame.interface_name", "frame.packet_flags_direction")
    assert [row[0] for row in rows] == ["l2-tunnel"] * packets
    assert {row[1] for row in rows} <= {"0x00000001", "0x00000002", "1", "2"}
    assert tshark(path, "frame.number", only="_ws.malformed") == []
    with PcapNgReader(str(path)) as reader:
        assert len(reader.read_all()) == packets
