"""The capture of a tunnel as an operator has it: begun and ended while the tunnel lives."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import pcapng
from support.captures import files
from support.door import Stand, from_wire, standing

from aero_l2.errors import CaptureUnavailable
from aero_l2.observe.capture.captures import MAX_WAITING_OF_ONE, Captures
from aero_l2.observe.capture.file import CaptureFile
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.capture.thread import NAME
from aero_l2.observe.metrics import Metrics
from aero_l2.session.capturing import TunnelCapture
from aero_l2.wire.tunnel import encode

FRAMES = [bytes([number]) * 60 for number in range(8)]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(AERO_L2_CAPTURE_DIR=str(tmp_path), AERO_L2_CAPTURE_ON_DEMAND="1") as made:
        yield made


def capture_of(stand: Stand) -> TunnelCapture:
    (tunnel,) = stand.door.tunnels.live
    return tunnel.capture


async def test_a_capture_has_what_passes_between_start_and_stop(stand: Stand, tmp_path: Path) -> None:
    async with await stand.client() as client:
        await client.send(encode(0, FRAMES[0]))
        assert await from_wire(stand) == FRAMES[0]
        capture = capture_of(stand)
        assert capture.running is None
        path = await capture.start()
        assert os.path.dirname(path) == str(tmp_path)
        assert capture.running is not None
        assert capture.running.path == path
        await client.send(encode(0, FRAMES[1]))
        assert await from_wire(stand) == FRAMES[1]
        stand.opener.only.wire.send(FRAMES[2])
        await client.recv()
        assert await capture.stop() == path
        assert capture.running is None
        got = pcapng.read(Path(path))
        assert [(p.is_inbound, p.data) for p in got.packets] == [(True, FRAMES[1]), (False, FRAMES[2])]
        assert got.statistics == (2, 0)
        await client.send(encode(0, FRAMES[3]))
        assert await from_wire(stand) == FRAMES[3]
        assert pcapng.read(Path(path)).packets == got.packets


async def test_the_next_capture_of_a_tunnel_is_another_file(stand: Stand) -> None:
    async with await stand.client():
        capture = capture_of(stand)
        paths = []
        for _ in range(3):
            paths.append(await capture.start())
            assert await capture.stop() == paths[-1]
    assert len(set(paths)) == 3


async def test_its_size_and_frames_are_known(stand: Stand) -> None:
    async with await stand.client() as client:
        capture = capture_of(stand)
        path = await capture.start()
        running = capture.running
        assert running is not None
        assert running.size == os.stat(path).st_size > 0
        for frame in FRAMES:
            await client.send(encode(0, frame))
            await from_wire(stand)
        await capture.stop()
    assert (running.size, running.frames) == (os.stat(path).st_size, len(FRAMES))


async def test_one_at_a_time_and_only_one_that_runs_can_be_stopped(stand: Stand) -> None:
    async with await stand.client():
        capture = capture_of(stand)
        with pytest.raises(CaptureUnavailable, match="not being captured"):
            await capture.stop()
        path = await capture.start()
        with pytest.raises(CaptureUnavailable, match=f"already, to {path}"):
            await capture.start()
        await capture.stop()


async def test_it_ends_with_its_tunnel(stand: Stand) -> None:
    async with await stand.client() as client:
        capture = capture_of(stand)
        path = await capture.start()
        await client.send(encode(0, FRAMES[0]))
        await from_wire(stand)
    await stand.until(lambda: capture.running is None, "it ended")
    await stand.until(lambda: pcapng.read(Path(path), cut_short=True).statistics, "the file is closed")
    assert pcapng.read(Path(path)).inbound == [FRAMES[0]]
    with pytest.raises(CaptureUnavailable, match="the tunnel is not open"):
        await capture.start()


async def test_without_a_directory_it_says_which_setting_is_missing() -> None:
    async with standing() as stand, await stand.client():
        with pytest.raises(CaptureUnavailable, match="set AERO_L2_CAPTURE_DIR"):
            await capture_of(stand).start()


async def test_a_directory_that_cannot_be_written_to_is_an_error_and_counted(
    stand: Stand, tmp_path: Path
) -> None:
    os.rmdir(tmp_path)
    os.close(os.open(tmp_path, os.O_CREAT))
    async with await stand.client() as client:
        capture = capture_of(stand)
        with pytest.raises(CaptureUnavailable, match=f"cannot write to {tmp_path}: Not a directory"):
            await capture.start()
        assert capture.running is None
        assert stand.value("l2_capture_errors_total") == 1
        await client.send(encode(0, FRAMES[0]))
        assert await from_wire(stand) == FRAMES[0]


async def test_a_thousand_captures_share_one_thread(tmp_path: Path) -> None:
    """Exact in their counts, and no descriptor is left."""
    count, frames = 1000, FRAMES * 4
    metrics, fds = Metrics(), len(os.listdir("/proc/self/fd"))
    captures = Captures(CaptureRules(str(tmp_path), flush_interval_s=0.05), metrics)
    running = [captures.begin(number + 1, lambda ended: None) for number in range(count)]
    for one in frames:
        for capture in running:
            capture.take([one], len(one), inbound=True)
        await asyncio.sleep(0)
    assert sum(thread.name == NAME for thread in threading.enumerate()) == 1
    assert await captures.finish(60) == 0
    assert captures.waiting == 0
    assert all(pcapng.read(path).inbound == frames for path in files(tmp_path))
    value = metrics.registry.get_sample_value
    assert value("l2_capture_frames_total") == count * len(frames)
    assert value("l2_capture_bytes_total") == sum(path.stat().st_size for path in files(tmp_path))
    assert len(os.listdir("/proc/self/fd")) <= fds + 1


async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    """The writer's thread is busy elsewhere: frames are left out and counted, and memory is given back."""
    metrics = Metrics()
    captures = Captures(CaptureRules(str(tmp_path)), metrics)
    gate = threading.Event()
    captures._thread.post(lambda: gate.wait(30) and None)
    capture = captures.begin(1, lambda ended: None)
    frame, sent = bytes(1500), 6000
    for _ in range(sent):
        capture.take([frame], len(frame), inbound=False)
    assert MAX_WAITING_OF_ONE // 2 < captures.waiting <= MAX_WAITING_OF_ONE
    gate.set()
    assert await captures.finish(60) == 0
    assert captures.waiting == 0
    (path,) = files(tmp_path)
    contents = pcapng.read(path)
    dropped = metrics.registry.get_sample_value("l2_capture_frames_dropped_total")
    assert dropped
    assert contents.statistics == (sent, dropped)
    assert len(contents.packets) == sent - dropped


async def test_a_capture_that_fails_late_does_not_end_the_next_one(stand: Stand) -> None:
    """Its file was removed; that is seen when it is closed, and the next one runs by then."""
    async with await stand.client() as client:
        capture = capture_of(stand)
        os.unlink(await capture.start())
        await client.send(encode(0, FRAMES[0]))
        await from_wire(stand)
        stopping = asyncio.create_task(capture.stop())
        await asyncio.sleep(0)
        path = await capture.start()
        with pytest.raises(CaptureUnavailable, match="the file was removed"):
            await stopping
        assert capture.running is not None
        assert await capture.stop() == path
    assert stand.value("l2_capture_errors_total") == 1
    assert stand.value("aero_l2_capture_frames_dropped_total", cause="error") == 1


def test_a_name_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    rules = CaptureRules(str(tmp_path))
    made = [CaptureFile(rules, 1_700_000_000_000, 5) for _ in range(3)]
    names = [file.name for file in made]
    assert names == [f"170000000000{number}-session-5.pcapng" for number in range(3)]
    for file in made:
        file.finish(0)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    folder, aside = tmp_path / "captures", tmp_path / "aside"
    folder.mkdir()
    (folder / "1700000000000-session-5.pcapng").symlink_to(aside)
    file = CaptureFile(CaptureRules(str(folder)), 1_700_000_000_000, 5)
    file.finish(0)
    assert file.name == "1700000000001-session-5.pcapng"
    assert not aside.exists()
