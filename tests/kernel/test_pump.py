"""The pump on a real TAP in a namespace: frames of any kind both ways, bounded queues, harmless nonsense."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from support.ns import Namespace, namespace

from aero_l2.observe.metrics import Metrics
from aero_l2.quota.bucket import TokenBucket
from aero_l2.services.router import advertisement
from aero_l2.session.pump import READS_PER_WAKE_UP, Pump
from aero_l2.wire.send import frame_prefixes
from aero_l2.wire.tunnel import FRAME_HEADER
from netns.tap import open_tap

ETHERTYPE = 0x88B5  # IEEE 802 local experimental: the kernel has no opinion on it
BROADCAST = b"\xff" * 6
GUEST_MAC = bytes.fromhex("525400123456")
ETH_P_ALL = 3


@dataclass
class Lan:
    """A TAP that is up, and a packet socket on the kernel's side of it."""

    namespace: Namespace
    tap: int
    kernel: socket.socket

    def close(self) -> None:
        os.close(self.tap)
        self.kernel.close()


@dataclass
class Client:
    """Where the pump's batches go."""

    batches: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def frames(self) -> list[bytes]:
        """Frames out of the WebSocket messages, read by their own lengths."""
        frames, data = [], b"".join(self.batches)
        while data:
            assert data[0] == 0x82
            header, length = (2, data[1]) if data[1] < 126 else (4, struct.unpack_from("!H", data, 2)[0])
            message, data = data[header : header + length], data[header + length :]
            assert message[:4] == FRAME_HEADER
            frames.append(message[4:])
        return frames


@pytest.fixture
def lan() -> Iterator[Lan]:
    with namespace("pump") as place:
        place.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        tap = place.call(lambda: open_tap("tap0"))
        place.run("ip", "link", "set", "tap0", "up")
        kernel = place.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        kernel.bind(("tap0", 0))
        kernel.setblocking(False)
        lan = Lan(place, tap, kernel)
        try:
            yield lan
        finally:
            lan.close()


def frame(size: int, number: int = 0) -> bytes:
    return (BROADCAST + GUEST_MAC + struct.pack("!HI", ETHERTYPE, number)).ljust(size, b"\xa5")[:size]


def pump_of(
    lan: Lan,
    client: Client,
    metrics: Metrics,
    max_frame_payload: int = 2048,
    rate: TokenBucket | None = None,
) -> Pump:
    return Pump(
        lan.tap,
        prefixes=frame_prefixes(max_frame_payload),
        send=client.batches.append,
        failed=client.failures.append,
        metrics=metrics,
        rate=rate,
    )


def value(metrics: Metrics, name: str) -> float:
    got = metrics.registry.get_sample_value(name)
    assert got is not None
    return got


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within 5 s")


def seen_by_kernel(lan: Lan) -> list[bytes]:
    """Experimental frames that came out of the TAP on the kernel's side."""
    frames = []
    while True:
        try:
            data = lan.kernel.recv(65536)
        except BlockingIOError:
            return frames
        if data[12:14] == struct.pack("!H", ETHERTYPE) and data[6:12] == GUEST_MAC:
            frames.append(data)


async def test_frames_go_up_unchanged_and_in_order(lan: Lan) -> None:
    metrics = Metrics()
    pump = pump_of(lan, Client(), metrics)
    pump.start()
    sent = [frame(size, number) for number, size in enumerate((60, 61, 1514, 1518, 2048, 64))]
    pump.to_tap(sent)
    pump.stop()
    assert seen_by_kernel(lan) == sent
    assert value(metrics, "l2_frames_rx_total") == len(sent)
    assert value(metrics, "l2_frames_dropped_total") == 0


def internet_frames(count: int) -> list[bytes]:
    """IPv4 frames to 8.8.8.8, each with another source address."""
    header = BROADCAST + GUEST_MAC + b"\x08\x00" + bytes(12)
    return [header + bytes([10, 0, 2, number]) + b"\x08\x08\x08\x08" + bytes(30) for number in range(count)]


def test_frames_kept_back_are_written_once_in_order_or_counted_as_lost(lan: Lan) -> None:
    async def scenario(release: bool) -> tuple[int, float]:
        metrics = Metrics()
        pump = pump_of(lan, Client(), metrics)
        pump.hold_early()
        pump.start()
        pump.to_tap([*internet_frames(3), frame(60)])
        assert seen_by_kernel(lan) == [frame(60)]
        if release:
            pump.release_early()
            pump.to_tap([frame(61)])
        pump.stop()
        pump.release_early()
        return len(lan_frames(lan)), value(metrics, "l2_frames_dropped_total")

    assert asyncio.run(scenario(release=True)) == (4, 0)
    assert asyncio.run(scenario(release=False)) == (0, 3)


def lan_frames(lan: Lan) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(lan.kernel.recv(65536))
        except BlockingIOError:
            return frames


async def test_any_frame_is_harmless(lan: Lan) -> None:
    metrics, client = Metrics(), Client()
    pump = pump_of(lan, client, metrics)
    pump.start()
    odd = [b"", b"x", bytes(13), bytes(14), bytes(2048), b"\xff" * 2048, frame(14), BROADCAST + b"\x81" * 40]
    odd += [os.urandom(size) for size in range(1, 2048, 37)]
    pump.to_tap(odd)
    last = frame(60, 77)
    pump.to_tap([last])
    assert seen_by_kernel(lan)[-1] == last
    assert value(metrics, "l2_frames_rx_total") == len(odd) + 1
    assert value(metrics, "l2_frames_dropped_total") >= 3
    assert client.failures == []
    pump.stop()


async def test_frames_beyond_the_rate_are_dropped_and_counted(lan: Lan) -> None:
    metrics = Metrics()
    pump = pump_of(lan, Client(), metrics, rate=TokenBucket(0.001, 10, time.monotonic()))
    pump.start()
    sent = [frame(60, number) for number in range(30)]
    pump.to_tap(sent[:7])
    pump.to_tap(sent[7:])
    pump.stop()
    assert seen_by_kernel(lan) == sent[:10]
    assert value(metrics, "l2_frames_rx_total") == 30
    assert value(metrics, "l2_frames_dropped_total") == 20


async def test_router_solicitation_is_answered_among_other_frames(lan: Lan) -> None:
    metrics, client = Metrics(), Client()
    pump = pump_of(lan, client, metrics)
    pump.start()
    asked = bytes.fromhex("33330000000252540012345686dd6000000000083aff") + bytes(32) + bytes([133] + [0] * 7)
    pump.to_tap([frame(60, 1), asked, frame(60, 2)])
    pump.pause()
    pump.to_tap([asked])
    pump.stop()
    assert client.frames == [advertisement()]
    assert value(metrics, "l2_frames_tx_total") == 1


async def test_frames_come_down_in_batches(lan: Lan) -> None:
    metrics, client = Metrics(), Client()
    pump = pump_of(lan, client, metrics)
    sent = [frame(60 + number, number) for number in range(READS_PER_WAKE_UP + 10)]
    for one in sent:
        lan.kernel.send(one)
    pump.start()
    await until(lambda: len(client.frames) >= len(sent))
    pump.stop()
    assert [got for got in client.frames if got[12:14] == struct.pack("!H", ETHERTYPE)] == sent
    assert len(client.batches) <= 3
    assert value(metrics, "l2_frames_tx_total") == len(client.frames)
    assert value(metrics, "l2_bytes_tx_total") == sum(map(len, client.frames))


async def test_paused_pump_leaves_frames_to_the_queue_and_resumes(lan: Lan) -> None:
    client = Client()
    pump = pump_of(lan, client, Metrics())
    pump.start()
    pump.pause()
    for number in range(5000):
        lan.kernel.send(frame(1000, number))
    await asyncio.sleep(0)
    assert client.batches == []
    pump.resume()
    await until(lambda: len(client.frames) > 100)
    await asyncio.sleep(0.05)
    pump.stop()
    assert len(client.frames) <= 1001  # the TAP's queue (txqueuelen) is all that was kept
    assert client.frames[0] == frame(1000, 0)


async def test_frames_over_the_limit_do_not_come_down(lan: Lan) -> None:
    metrics, client = Metrics(), Client()
    pump = pump_of(lan, client, metrics, max_frame_payload=600)
    pump.start()
    for size in (601, 600, 1514):
        lan.kernel.send(frame(size))
    await until(lambda: value(metrics, "l2_frames_dropped_total") == 2)
    pump.stop()
    assert client.frames == [frame(600)]


async def test_stopped_pump_touches_nothing(lan: Lan) -> None:
    metrics, client = Metrics(), Client()
    pump = pump_of(lan, client, metrics)
    pump.start()
    pump.stop()
    pump.stop()
    pump.resume()
    lan.kernel.send(frame(60))
    pump.to_tap([frame(60)])
    await asyncio.sleep(0.02)
    assert client.batches == []
    assert seen_by_kernel(lan) == []
    assert value(metrics, "l2_frames_dropped_total") == 1


async def test_tap_that_is_taken_away_is_reported_once(lan: Lan) -> None:
    client = Client()
    pump = pump_of(lan, client, Metrics())
    pump.start()
    lan.namespace.run("ip", "link", "delete", "tap0")
    pump.to_tap([frame(60)])
    await until(lambda: bool(client.failures))
    await asyncio.sleep(0.02)
    assert client.failures == ["the TAP cannot be read: File descriptor in bad state"]
    pump.stop()
