"""Captures of the real proxy's tunnels, read by tshark, capinfos, scapy and a reader of our own."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support import pcapng, procfs
from support.captures import (
    FRAME,
    NAME,
    SOON_S,
    capturing,
    check_with_others,
    closed,
    files,
    finished,
    mode_and_owner,
    run,
    so_far,
    tshark,
)
from support.proxy import USER_ID, RunAs
from support.rawguest import raw_guest
from support.wait import until
from support.world import World


@pytest.fixture
def folder(tmp_path: Path, proxy_as: RunAs) -> Path:
    """Where an ordinary user may make the directory itself; for root's proxy it is root's own."""
    tmp_path.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    if proxy_as == "user":
        os.chown(place, USER_ID, USER_ID)
    return place / "captures"


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The same for a proxy of root's, where who starts it makes no difference."""
    tmp_path.chmod(0o755)
    return tmp_path / "captures"


async def test_every_frame_both_ways_is_in_a_file_that_others_read(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    """Lease, names, ping, TCP, a datagram; frames that are too short; as many as the metrics say."""
    with capturing(world, proxy_as, folder) as proxy:
        before = time.time_ns()
        async with raw_guest(proxy) as guest:
            await guest.dhcp()
            await guest.echo(b"captured")
            assert await guest.ping("10.0.2.2")
            await guest.resolve("nobody.knows.this.name.test")
            await guest.try_tcp("203.0.113.7", 80)
            for size in (1, 13, 14, 60, 1514, 2048):
                await guest.tunnel.send(FRAME.ljust(size, b"x")[:size])
            await guest.tunnel.ping(b"all taken")
        seen = guest.drain()
        (path,) = await closed(folder)
        proxy.wait_settled()
        after = time.time_ns()
        contents = pcapng.read(path)
        assert contents.outbound == seen
        assert contents.inbound[-6:] == [FRAME.ljust(n, b"x")[:n] for n in (1, 13, 14, 60, 1514, 2048)]
        rx, tx = proxy.metric("l2_frames_rx_total"), proxy.metric("l2_frames_tx_total")
        assert (len(contents.inbound), len(contents.outbound)) == (rx, tx)
        assert sum(map(len, contents.inbound)) == proxy.metric("l2_bytes_rx_total")
        assert sum(map(len, contents.outbound)) == proxy.metric("l2_bytes_tx_total")
        assert contents.statistics == (rx + tx, 0)
        assert proxy.metric("l2_capture_frames_total") == rx + tx
        assert proxy.metric("l2_capture_bytes_total") == path.stat().st_size
        assert proxy.metric("l2_capture_frames_dropped_total") == 0
        assert proxy.metric("l2_capture_errors_total") == 0
    times = [packet.nanoseconds for packet in contents.packets]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    ms = int(path.name[:13])
    assert before // 10**6 <= ms <= times[0] // 10**6
    # What is too short to be Ethernet is no frame to a dissector, and no fault of the file.
    short = tshark(path, "frame.number", only="frame.len < 14")
    assert len(short) == 2
    whole = [packet for packet in contents.packets if len(packet.data) >= 14]
    rows = tshark(path, "frame.interface_name", "frame.packet_flags_direction", "frame.time_epoch")
    assert [row[0] for row in rows] == ["l2-tunnel"] * len(contents.packets)
    assert [int(row[1], 0) == 1 for row in rows] == [packet.is_inbound for packet in contents.packets]
    assert [row[2] for row in rows] == [f"{t // 10**9}.{t % 10**9:09}" for t in times]
    assert len(tshark(path, "frame.number", only="!_ws.malformed")) >= len(whole)
    assert tshark(path, "dhcp.option.dhcp", only="dhcp") == [["1"], ["2"], ["3"], ["5"]]
    told = run("capinfos", "-c", "-T", "-r", "-M", str(path)).split()
    assert str(len(contents.packets)) in told


async def test_frames_of_an_ordinary_guest_are_not_malformed(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    with capturing(world, proxy_as, folder) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.dhcp()
            await guest.echo(b"captured")
            assert await guest.ping("10.0.2.2")
            await guest.resolve("nobody.knows.this.name.test")
        (path,) = await closed(folder)
        check_with_others(path, len(pcapng.read(path).packets))


async def test_directory_is_made_for_its_user_alone_and_so_are_files(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    with capturing(world, proxy_as, folder) as proxy:
        owner = int(procfs.status(proxy.one("server"))["Uid"].split()[0])
        assert mode_and_owner(folder) == (0o700, owner)
        async with raw_guest(proxy) as guest:
            await guest.tunnel.ping(b"open")
            await until(lambda: files(folder), "there is a file", SOON_S)
            (path,) = files(folder)
            assert mode_and_owner(path) == (0o600, owner)
        assert os.listdir(folder) == [path.name], "what it was tried with is gone"


async def test_size_has_a_cap_and_what_is_beyond_is_counted(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    cap, frame = 5000, FRAME.ljust(300, b"x")
    with capturing(world, proxy_as, folder, AERO_L2_CAPTURE_MAX_BYTES=str(cap)) as proxy:
        async with raw_guest(proxy) as guest:
            for _ in range(40):
                await guest.tunnel.send(frame)
            await guest.tunnel.ping(b"all taken")
        (path,) = await closed(folder)
        contents = pcapng.read(path)
        assert cap - len(frame) - 44 < path.stat().st_size <= cap
        assert contents.inbound == [frame] * len(contents.packets)
        left_out = 40 - len(contents.packets)
        assert contents.statistics == (40, left_out)
        assert left_out > 0
        assert proxy.metric("l2_capture_frames_dropped_total") == left_out
        assert proxy.metric('aero_l2_capture_frames_dropped_total{cause="size"}') == left_out
        assert proxy.metric("l2_capture_frames_total") == len(contents.packets)
        assert proxy.metric("l2_capture_bytes_total") == path.stat().st_size
        assert proxy.metric("l2_frames_rx_total") == 40
        check_with_others(path, len(contents.packets))


async def test_a_cap_below_the_headers_leaves_a_file_without_frames(world: World, roots: Path) -> None:
    with capturing(world, "root", roots, AERO_L2_CAPTURE_MAX_BYTES="1") as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        await until(lambda: proxy.metric("l2_capture_frames_dropped_total") >= 2, "counted", SOON_S)
        (path,) = files(roots)
        assert not pcapng.read(path).packets


async def test_snaplen_keeps_the_begin_of_each_frame(world: World, proxy_as: RunAs, folder: Path) -> None:
    with capturing(world, proxy_as, folder, AERO_L2_CAPTURE_SNAPLEN="64") as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(bytes(1000))
        (path,) = await closed(folder)
    contents = pcapng.read(path)
    assert contents.snaplen == 64
    assert max(len(packet.data) for packet in contents.packets) == 64
    assert max(packet.length for packet in contents.packets) > 1000
    rows = tshark(path, "frame.cap_len", "frame.len")
    assert [(int(a), int(b)) for a, b in rows] == [(len(p.data), p.length) for p in contents.packets]


async def test_the_file_grows_each_flush_interval(world: World, roots: Path) -> None:
    with capturing(world, "root", roots, AERO_L2_CAPTURE_FLUSH_INTERVAL_MS="100") as proxy:
        async with raw_guest(proxy) as guest:
            for number in range(3):
                await guest.tunnel.send(FRAME + bytes([number]) * 50)
                await until(lambda: files(roots) and so_far(roots).inbound[number:], "it is there", SOON_S)  # noqa: B023
            assert so_far(roots).inbound == [FRAME + bytes([number]) * 50 for number in range(3)]
            assert not finished(files(roots)[0])


async def test_interval_0_writes_frames_at_the_close(world: World, roots: Path) -> None:
    with capturing(world, "root", roots, AERO_L2_CAPTURE_FLUSH_INTERVAL_MS="0") as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"waits")
            await guest.echo(b"waits still")
            assert not so_far(roots).packets
            assert proxy.metric("l2_capture_frames_total") == 0
        (path,) = await closed(roots)
    assert len(pcapng.read(path).outbound) >= 2


async def test_much_is_written_before_the_close_whatever_the_interval(world: World, roots: Path) -> None:
    with capturing(world, "root", roots, AERO_L2_CAPTURE_FLUSH_INTERVAL_MS="0") as proxy:
        async with raw_guest(proxy) as guest:
            for number in range(300):
                await guest.tunnel.send(FRAME + number.to_bytes(2) + bytes(1400))
            await until(lambda: so_far(roots).packets, "some are written", SOON_S)
        (path,) = await closed(roots)
    assert [frame[14:16] for frame in pcapng.read(path).inbound] == [n.to_bytes(2) for n in range(300)]


def filled(folder: Path, aside: Path, proxy_as: RunAs) -> list[Path]:
    """200 old captures, oldest first by their time of writing, and what is none: the latter's paths."""
    owner = USER_ID if proxy_as == "user" else service_uid()
    folder.mkdir()
    os.chown(folder, owner, owner)
    for number in range(200):
        old = folder / f"1600000000{number:03}-session-7.pcapng"
        old.write_bytes(b"old")
        os.utime(old, (number, number))
        os.chown(old, owner, owner)
    aside.write_text("untouched")
    stay = [folder / "notes.txt", folder / "1600000000000-session-7.pcapng.gz", folder / "x-session-7.pcapng"]
    for path in stay:
        path.write_text("untouched")
        os.chown(path, owner, owner)
    stay.append(folder / "1500000000000-session-1.pcapng")
    stay[-1].symlink_to(aside)
    stay.append(folder / "1500000000000-session-2.pcapng")
    stay[-1].mkdir()
    stay.append(folder / "1500000000000-session-3.pcapng")
    stay[-1].write_text("of root")
    return stay


async def test_the_newest_files_are_kept_and_nothing_else_is_touched(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    """Older captures go; files of open tunnels, other names, links, folders and others' files stay."""
    aside = folder.parent / "not a capture"
    stay = filled(folder, aside, proxy_as)
    kept = 3
    with capturing(world, proxy_as, folder, AERO_L2_CAPTURE_MAX_FILES=str(kept)) as proxy:
        await until(lambda: len(pcapngs(folder, stay)) <= kept, "old ones are gone", SOON_S)
        newest = {f"1600000000{number}-session-7.pcapng" for number in range(200 - kept, 200)}
        assert {path.name for path in pcapngs(folder, stay)} == newest
        async with AsyncExitStack() as stack:
            for _ in range(kept + 2):
                await stack.enter_async_context(raw_guest(proxy))
            await until(lambda: len(pcapngs(folder, stay)) == kept + 2, "only open ones are left", SOON_S)
            open_ones = pcapngs(folder, stay)
            for _ in range(2):
                async with raw_guest(proxy) as guest:
                    await guest.echo(b"short")
            await until(lambda: pcapngs(folder, stay) == open_ones, "closed ones are gone", SOON_S)
        await until(lambda: len(pcapngs(folder, stay)) == kept, "as many as are to be kept", SOON_S)
        assert set(pcapngs(folder, stay)) <= set(open_ones)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"last")
            await until(lambda: files(folder)[-1] not in open_ones, "its file is there", SOON_S)
        last = files(folder)[-1]
        await until(lambda: finished(last), "it is closed", SOON_S)
        await until(lambda: len(pcapngs(folder, stay)) == kept, "as many as are to be kept", SOON_S)
        assert last in pcapngs(folder, stay)
    assert all(path.exists() for path in stay)
    assert aside.read_text() == "untouched"


def pcapngs(folder: Path, but: list[Path]) -> list[Path]:
    return [path for path in files(folder) if path not in but]


def service_uid() -> int:
    return pwd.getpwnam("aero-l2").pw_uid


async def test_after_sigterm_captures_are_complete(world: World, proxy_as: RunAs, folder: Path) -> None:
    """With the longest flush interval: nothing was written before."""
    count, frames = 20, 30
    with capturing(world, proxy_as, folder, AERO_L2_CAPTURE_FLUSH_INTERVAL_MS="86400000") as proxy:
        async with AsyncExitStack() as stack:
            guests = [await stack.enter_async_context(raw_guest(proxy)) for _ in range(count)]
            for number in range(frames):
                for guest in guests:
                    await guest.tunnel.send(FRAME + bytes([number]) * 100)
            for guest in guests:
                await guest.tunnel.ping(b"taken")
            proxy.terminate()
            for guest in guests:
                assert await guest.tunnel.closed() == (1001, "shutting down")
        assert await asyncio.to_thread(proxy.wait) == 0, proxy.log
    assert len(files(folder)) == count
    for path in files(folder):
        contents = pcapng.read(path)
        wanted = [FRAME + bytes([number]) * 100 for number in range(frames)]
        assert [frame for frame in contents.inbound if frame[12:14] == b"\x88\xb5"] == wanted
        assert contents.statistics == (len(contents.packets), 0)


async def test_after_sigkill_files_are_readable_up_to_the_last_flush(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    with capturing(world, proxy_as, folder, AERO_L2_CAPTURE_FLUSH_INTERVAL_MS="100") as proxy:
        async with raw_guest(proxy) as guest:
            await guest.tunnel.send(FRAME + b"flushed" * 9)
            await until(lambda: files(folder) and len(so_far(folder).inbound) == 1, "it is written", SOON_S)
            os.kill(proxy.one("server"), signal.SIGKILL)
            await guest.tunnel.closed()
    (path,) = files(folder)
    contents = pcapng.read(path)
    assert (contents.inbound[0], contents.statistics) == (FRAME + b"flushed" * 9, None)
    assert len(tshark(path, "frame.number")) == len(contents.packets)


@pytest.mark.slow
async def test_a_hundred_tunnels_at_once_are_captured_exactly(world: World, roots: Path) -> None:
    count, frames = 100, 40
    limits = {"AERO_L2_MAX_CONNECTIONS": "0", "AERO_L2_MAX_WAITING_SETUPS": "200"}
    with capturing(world, "root", roots, **limits) as proxy:
        async with AsyncExitStack() as stack:
            guests = [await stack.enter_async_context(raw_guest(proxy)) for _ in range(count)]
            for number in range(frames):
                for index, guest in enumerate(guests):
                    await guest.tunnel.send(FRAME + bytes([index, number]) * 40)
            for guest in guests:
                await guest.tunnel.ping(b"taken")
            threads = len(os.listdir(f"/proc/{proxy.one('server')}/task"))
            assert threads < 20, "one thread writes all of them"
        paths = await closed(roots, count)
        sent = {tuple(FRAME + bytes([index, n]) * 40 for n in range(frames)) for index in range(count)}
        got = {
            tuple(frame for frame in pcapng.read(path).inbound if frame[12:14] == b"\x88\xb5")
            for path in paths
        }
        assert got == sent
        assert proxy.metric("l2_capture_bytes_total") == sum(path.stat().st_size for path in paths)
        assert proxy.metric("l2_capture_frames_dropped_total") == 0


async def test_a_file_is_of_its_tunnel_by_the_number_in_the_log(world: World, roots: Path) -> None:
    with capturing(world, "root", roots) as proxy:
        for _ in range(2):
            async with raw_guest(proxy) as guest:
                await guest.echo(b"works")
        paths = await closed(roots, 2)
        opened = re.findall(r'"session": (\d+).*"event": "tunnel opened"', proxy.log)
        opened = opened or re.findall(r'"event": "tunnel opened".*?"session": (\d+)', proxy.log)
        assert [NAME.fullmatch(path.name)[1] for path in paths] == opened  # type: ignore[index]


async def test_nothing_is_captured_on_its_own_where_only_operators_ask(world: World, roots: Path) -> None:
    with capturing(world, "root", roots, AERO_L2_CAPTURE_ON_DEMAND="1") as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        proxy.wait_settled()
        assert files(roots) == []
